"""From phantoms through load, plan and sample, as the runner runs them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from pipeline.base.errors import DataError
from pipeline.base.execute_stage import execute
from pipeline.base.files import read_json
from pipeline.base.machine import Runtime
from pipeline.config.data import DataConfig
from pipeline.config.load import LoadConfig
from pipeline.config.plan import PlanConfig
from pipeline.config.sample import SampleConfig
from pipeline.dataset.loaded_cases import read_cases
from pipeline.dataset.phantoms import make_phantoms
from pipeline.models.networks.network_config import UNetConfig
from pipeline.preprocessing.plan import read_plan, write_plan
from pipeline.sampling.draw_batch import draw_batch
from pipeline.sampling.patch_store import open_store
from pipeline.stages import sample
from pipeline.stages.stage_configs import LoadStageConfig, PlanStageConfig, SampleStageConfig
from pipeline.stages.stage_table import LOAD, PLAN, SAMPLE

SERIAL = Runtime(device="cpu", executor="serial")
PINNED = PlanConfig(precision="fp32", batch_size=2)


def run_stages(folder: Path, manifest: Path, settings: SampleConfig, pins: PlanConfig = PINNED) -> None:
    data = DataConfig(manifest=manifest)
    execute(LOAD, LoadStageConfig(data=data, load=LoadConfig()), {}, folder / "load", SERIAL)
    goal = {"budget": None, "max_steps": 3, "max_epochs": None, "accumulate": 1}
    reads = PlanStageConfig(plan=pins, network=UNetConfig(), device="cpu", **goal)
    execute(PLAN, reads, {"load": folder / "load"}, folder / "plan", SERIAL)
    inputs = {"load": folder / "load", "plan": folder / "plan"}
    execute(SAMPLE, SampleStageConfig(sample=settings), inputs, folder / "sample", SERIAL)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_stages(folder, make_phantoms(folder / "data", cases=6), SampleConfig(folds=3, locations_per_class=50))
    return folder


def test_the_store_holds_what_the_plan_asks_for(prepared: Path) -> None:
    chosen, store = read_plan(prepared / "plan"), open_store(prepared / "sample" / "store")
    assert store.ids == tuple(case.id for case in read_cases(prepared / "load").training())
    for case in store.ids:
        image, label = store.image(case).numpy(), store.label(case).numpy()
        assert image.dtype == np.float32 and image.shape[1:] == label.shape == store.shape(case)
        assert abs(float(image.mean())) < 0.05 and abs(float(image.std()) - 1) < 0.15  # scaled before resampling
        assert set(np.unique(label)) == {0, 1, 2, 3}
        for structure, voxels in store.locations(case).items():
            assert (label[tuple(voxels.T)] == structure).all() and len(voxels) <= 50
            assert store.cases[case].foreground[structure] == (label == structure).sum()
    assert chosen.spacing_mm[2] > 1.6 > chosen.spacing_mm[0]


def test_orientations_agree_in_the_store(prepared: Path) -> None:
    """Organ, cyst and nodule lie on the same sides in every phantom, along whichever axes its file goes."""
    store = open_store(prepared / "sample" / "store")
    for case in store.ids:
        label = store.label(case).numpy()
        organ, cyst = (np.argwhere(label == k).mean(axis=0) for k in (1, 2))
        assert (cyst - organ)[0] > 5 and (cyst - organ)[1] > 4


def test_folds_and_preview_are_there(prepared: Path) -> None:
    folds = read_json(prepared / "sample" / "folds.json")
    assert folds["source"] == "made" and [len(fold["val"]) for fold in folds["folds"]] == [2, 2, 2]
    assert (prepared / "sample" / "preview.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("subjects", "sentence"),
    [
        (1, "no folds, since there is one subject: only train.folds: full"),
        (3, "3 folds instead of 5, since there are 3"),
    ],
)
def test_few_subjects_make_few_folds_and_it_is_said(tmp_path, caplog, subjects: int, sentence: str) -> None:
    manifest = make_phantoms(tmp_path / "data", cases=subjects, shape=(24, 24, 16))
    with caplog.at_level("INFO"):
        run_stages(tmp_path, manifest, SampleConfig(locations_per_class=5))
    folds = read_json(tmp_path / "sample" / "folds.json")["folds"]
    assert len(folds) == (0 if subjects == 1 else subjects) and sentence in caplog.text


def test_predicted_disk_space_is_what_was_written(prepared: Path) -> None:
    files = [path for path in (prepared / "sample" / "store").iterdir() if "locations" not in path.name]
    written = sum(path.stat().st_size for path in files) / 2**30
    assert read_plan(prepared / "plan").predicted["store_gib"] == pytest.approx(written, rel=0.05)


def test_the_same_in_memory_as_from_disk(prepared: Path) -> None:
    ram, disk = (open_store(prepared / "sample" / "store", mode) for mode in ("ram", "disk"))
    assert (ram.where, disk.where) == ("memory", "disk")
    assert torch.equal(ram.image(ram.ids[0]), disk.image(disk.ids[0]))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the files a process has mapped")
@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_only_a_store_on_disk_is_mapped(prepared: Path, mode: Literal["ram", "disk"]) -> None:
    store = open_store(prepared / "sample" / "store", mode)
    image = store.image(store.ids[0])  # held until the maps are read
    mapped = f"store/{store.ids[0]}.image.npy" in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert mapped == (mode == "disk") and image.numel() > 0


def test_a_gpu_keeps_the_store_where_training_leaves_room(prepared: Path) -> None:
    store = open_store(prepared / "sample" / "store", "auto")
    # "meta" stands in for a GPU: its arrays have no voxels that could be read by the CPU.
    near, crowded = (store.to_device("meta", free_gib=10, reserved_gib=taken) for taken in (9.5, 10 - store.gib))
    assert near.where == "GPU memory" and near.image(near.ids[0]).device.type == "meta"
    assert crowded.where == "memory" and "not less than a third of the 10.0 GiB free on the GPU" in crowded.reason
    batch = draw_batch(near, near.ids, (48, 48, 48), 2, seed=0, step=0)
    assert {batch.image_BCXYZ.device.type, batch.label_BXYZ.device.type} == {"meta"}
    asked = open_store(prepared / "sample" / "store", "disk")
    assert asked.to_device("meta", 10, 1).where == "disk"


def test_on_a_cpu_the_store_gets_half_of_what_training_leaves(
    prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = prepared / "sample" / "store"
    assert open_store(folder, "auto").where == "memory"
    crowded = open_store(folder, "auto", reserved_gib=1e6)
    assert crowded.where == "disk" and "without the" in crowded.reason and "GiB for training" in crowded.reason
    assert open_store(folder, "ram", reserved_gib=1e6).where == "memory"
    large = read_plan(prepared / "plan").model_copy(update={"predicted": {"train_memory_gib": 1e6}})
    inputs = {"load": prepared / "load", "plan": tmp_path / "plan"}
    for path in (inputs["plan"], tmp_path / "sample"):
        path.mkdir()
    write_plan(inputs["plan"], large)
    config = SampleStageConfig(sample=SampleConfig(locations_per_class=5))
    with caplog.at_level("INFO"):
        SAMPLE.run(config, inputs, tmp_path / "sample", SERIAL)
    assert "patches are read from disk" in caplog.text


def test_workers_change_nothing(prepared: Path, tmp_path: Path) -> None:
    inputs = {"load": prepared / "load", "plan": prepared / "plan"}
    reads = SampleStageConfig(sample=SampleConfig(folds=3, locations_per_class=50))
    execute(SAMPLE, reads, inputs, tmp_path / "sample", Runtime(device="cpu", executor="process", workers=2))
    outputs = [read_json(folder / "sample" / "stage.json")["outputs"] for folder in (prepared, tmp_path)]
    assert outputs[0] == outputs[1]


def test_a_full_disk_is_noticed_before_anything_is_written(prepared: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.sampling.store_size.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    inputs = {"load": prepared / "load", "plan": prepared / "plan"}
    with pytest.raises(DataError, match=r"the patch store needs .* GiB free; free some"):
        sample.run(SampleStageConfig(sample=SampleConfig()), inputs, tmp_path, SERIAL)
    assert not list((tmp_path / "store").iterdir())
