"""The stage: its files, its folds, exact resuming through the stage contract, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import torch
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.base.errors import ConfigError, DataError, TrainingError
from pipeline.base.execute_stage import execute
from pipeline.base.files import read_json, write_json
from pipeline.base.machine import Runtime
from pipeline.base.stage import RECORD
from pipeline.config import load_config
from pipeline.config.train import TrainConfig
from pipeline.dataset.phantoms import make_phantoms
from pipeline.models.checkpoint import load_weights
from pipeline.preprocessing.plan import ChannelPlan, read_plan
from pipeline.runner import run
from pipeline.sampling.augmentation.augment_batch import augment_batch
from pipeline.sampling.patch_store import open_store
from pipeline.stages import train
from pipeline.stages.early_checks import check_train
from pipeline.stages.stage_configs import TrainStageConfig
from pipeline.stages.stage_table import TRAIN
from pipeline.training import check_train_against_plan, run_folds, training_batches
from pipeline.training.check_train_against_plan import check_against_plan
from tests.training.prepared_store import prepare

DIGESTED = ("train.json", "fold_0/last.safetensors", "fold_0/best.safetensors", "fold_0/metrics.csv")


@pytest.fixture(autouse=True)
def _same_number_of_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _train(inputs, out, seed=0, **settings):
    config = TrainStageConfig(train=TrainConfig(**{"tensorboard": False, **settings}), seed=seed)
    execute(TRAIN, config, inputs, out, Runtime("cpu", "serial", 1))
    return read_json(out / "train.json")


def _bytes(folder, names=DIGESTED):
    return {name: (folder / name).read_bytes() for name in names}


def test_it_leaves_what_it_promises_and_equal_runs_are_equal_byte_by_byte(tmp_path):
    inputs = prepare(tmp_path)
    summary = _train(inputs, tmp_path / "one", tensorboard=True)
    assert summary["folds"] == [0] and summary["steps"] == 6
    assert set(summary["validation"]["0"]["dice"]) == {"large", "small"}
    shown = EventAccumulator(str(tmp_path / "one/fold_0/tensorboard")).Reload().Tags()
    assert {"loss", "lr", "dice_mean", "patches_per_s", "peak_memory_gib"} <= set(shown["scalars"])
    assert shown["images"] == ["validation/case_0"]  # in six steps one whole case is more than validation's share
    assert not (tmp_path / "one/fold_0/state.pt").exists()
    _train(inputs, tmp_path / "two")
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    _train(inputs, tmp_path / "three", seed=1)
    assert _bytes(tmp_path / "one") != _bytes(tmp_path / "three")


def test_it_learns(tmp_path):
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    summary = _train(prepare(tmp_path, max_steps=60), tmp_path / "out", optimizer=optimizer)
    assert summary["validation"]["0"]["dice"]["large"] > 0.7


@pytest.mark.parametrize(
    "network",
    [
        pytest.param({"name": "vnet"}, marks=pytest.mark.slow),
        {"name": "segresnet", "init_filters": 8, "blocks_down": (1, 1)},
    ],
    ids=lambda n: n["name"],
)
def test_other_networks_train_too(tmp_path, network):
    inputs = prepare(tmp_path, network=network, patch_size=(32, 16, 16), max_steps=1, batch_size=1)
    assert _train(inputs, tmp_path / "out")["network"]["name"] == network["name"]


def _killed_at(monkeypatch, fatal_call):
    """Augmentation fails at its n-th call, as if the process had been killed there."""
    calls = []

    def failing(*arguments, **more):
        calls.append(1)
        if len(calls) == fatal_call:
            raise SystemExit("killed")
        return augment_batch(*arguments, **more)

    monkeypatch.setattr(training_batches, "augment_batch", failing)


@pytest.mark.parametrize("fatal_call", [4, 9])
def test_several_folds_go_on_where_they_stopped(tmp_path, monkeypatch, fatal_call, caplog):
    """Two folds of six steps, with accumulation and moving average; killed in the first or the second fold."""
    settings = {"folds": (0, 2), "accumulate": 2, "ema": 0.5, "save_every": 1e-9}
    inputs = prepare(tmp_path)
    _train(inputs, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        _killed_at(patch, fatal_call)
        _train(inputs, tmp_path / "resumed", **settings)
    assert (tmp_path / "resumed.partial").is_dir() and not (tmp_path / "resumed").exists()
    with caplog.at_level("INFO"):
        _train(inputs, tmp_path / "resumed", **settings)
    assert "resumed at step" in caplog.text
    names = [*DIGESTED, *(name.replace("fold_0", "fold_2") for name in DIGESTED)]
    assert _bytes(tmp_path / "whole", names) == _bytes(tmp_path / "resumed", names)


TWO_DEVICES = ["cpu", "cpu:0"]


@pytest.mark.slow
def test_folds_side_by_side_are_those_in_turn(tmp_path, monkeypatch):
    """Each in a process of its own, as on two GPUs; in one folder, with one summary."""
    inputs = prepare(tmp_path)
    whole = _train(inputs, tmp_path / "in_turn", folds=(0, 2))
    monkeypatch.setattr(train, "_devices", lambda device: TWO_DEVICES)
    assert _train(inputs, tmp_path / "beside", folds=(0, 2)) == whole
    names = [*DIGESTED, *(name.replace("fold_0", "fold_2") for name in DIGESTED)]
    assert _bytes(tmp_path / "in_turn", names) == _bytes(tmp_path / "beside", names)
    assert "6 steps in" in (tmp_path / "beside/fold_2/log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_fold_that_fails_beside_others_is_named_and_they_are_kept(tmp_path, monkeypatch):
    inputs = prepare(tmp_path)
    monkeypatch.setattr(train, "_devices", lambda device: ["cpu", "cpu:none"])
    with pytest.raises(TrainingError, match=r"1 of 2 folds failed\. fold 2: device: 'cpu:none' is not a device"):
        _train(inputs, tmp_path / "out", folds=(0, 2))
    assert (tmp_path / "out.partial/fold_0/result.json").is_file()


@pytest.mark.slow
def test_side_by_side_goes_on_after_the_process_that_began_it_was_killed(tmp_path, monkeypatch):
    inputs = prepare(tmp_path, max_steps=150)
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from pipeline.stages import train
        from tests.stages.test_train import TWO_DEVICES, _train
        train._devices = lambda device: TWO_DEVICES
        root = Path({str(tmp_path)!r})
        inputs = {{name: root / name for name in ("plan", "sample")}}
        _train(inputs, root / "killed", folds=(0, 2), save_every=1e-9)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2]) as process:
        states = [tmp_path / f"killed.partial/fold_{fold}/metrics.csv" for fold in (0, 2)]
        end = time.monotonic() + 120
        while not all(path.is_file() and path.read_text(encoding="utf-8").count("\n") > 5 for path in states):
            assert process.poll() is None and time.monotonic() < end, "no training began"
            time.sleep(0.05)
        trainings = psutil.Process(process.pid).children()
        process.kill()
    assert len(trainings) == 2 and not psutil.wait_procs(trainings, timeout=60)[1]
    assert not any((path.parent / "result.json").is_file() for path in states)
    _train(inputs, tmp_path / "killed", folds=(0, 2))
    _train(inputs, tmp_path / "whole", folds=(0, 2))
    names = [*DIGESTED, *(name.replace("fold_0", "fold_2") for name in DIGESTED)]
    assert _bytes(tmp_path / "killed", names) == _bytes(tmp_path / "whole", names)


def test_folds_all_and_full(tmp_path):
    inputs = prepare(tmp_path, max_steps=1)
    assert _train(inputs, tmp_path / "all", folds="all")["folds"] == [0, 1, 2]
    assert _train(inputs, tmp_path / "full", folds="full")["folds"] == ["full"]
    assert (tmp_path / "full/fold_full/best.safetensors").is_file()


def test_a_fold_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.folds names 3, but there are only folds 0 to 2"):
        _train(prepare(tmp_path), tmp_path / "out", folds=(0, 3))


MISMATCHES = [
    ({"loss": {"name": "ce", "class_weights": (1.0, 2.0)}}, "has 2 weights, but the network has 3 channels"),
    ({"loss": {"name": "ce", "activation": "sigmoid"}}, "structures of this data exclude one another"),
    ({"deep_supervision_weights": (1.0,)}, "has 1 weights, but the network has 2 outputs"),
    ({"oversample_weights": {"tiny": 2.0}}, "oversample_weights names tiny"),
    ({"folds": (0, 7)}, "names 7, but there are only folds 0 to 2"),
    ({"pretrained": Path("nowhere")}, "neither a safetensors file nor a package"),
    ({"mlflow": "http://127.0.0.1:9"}, "train.mlflow needs mlflow, which is not installed"),
]


@pytest.mark.parametrize(("settings", "said"), MISMATCHES)
def test_what_does_not_suit_the_plan_is_found_without_any_prepared_case(tmp_path, monkeypatch, settings, said):
    monkeypatch.setattr(check_train_against_plan, "find_spec", lambda name: None)
    plan = read_plan(prepare(tmp_path)["plan"])
    check_against_plan(TrainConfig(), plan, folds=3)
    with pytest.raises((ConfigError, DataError), match=said):
        check_against_plan(TrainConfig(**settings), plan, folds=3)


CONFIG = """\
name: tiny
device: cpu
data: {manifest: phantoms/manifest.json}
executor: {name: serial}
plan: {patch_size: [16, 16, 16], batch_size: 1, precision: fp32}
train: {max_steps: 1, folds: [7], network: {name: unet, channels: [4, 8, 8]}}
"""


def test_a_run_asks_before_it_prepares_cases(tmp_path):
    """Three subjects make three folds, whatever sample.folds says."""
    make_phantoms(tmp_path / "phantoms", cases=3, shape=(24, 24, 16))
    (tmp_path / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"train\.folds names 7, but there are only folds 0 to 2"):
        run(load_config(tmp_path / "tiny.yaml"), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == {"load", "plan"}


def test_a_finished_run_needs_no_mlflow_to_be_brought_up_to_date(tmp_path, monkeypatch):
    make_phantoms(tmp_path / "phantoms", cases=3, shape=(24, 24, 16))
    (tmp_path / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    config = load_config(tmp_path / "tiny.yaml", ["train.folds=[0]", "train.mlflow=sqlite:///x"])
    monkeypatch.setattr(check_train_against_plan, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"train\.mlflow needs mlflow"):
        run(config, tmp_path / "run")
    write_json(tmp_path / "run/train" / RECORD, {})
    check_train(config, tmp_path / "run")


def test_early_stopping_without_anything_to_validate_is_refused():
    with pytest.raises(ValidationError, match=r"goes by validation cases, of which train\.folds: full has none"):
        TrainConfig(folds="full", early_stopping={"patience": 3})


def test_epochs_are_not_held_against_a_budget(tmp_path, caplog):
    """The plan did not look at it. Where nothing is given it took half an hour, which is said as well."""
    inputs = prepare(tmp_path, max_steps=1)
    with caplog.at_level("INFO"):
        _train(inputs, tmp_path / "epochs", budget="5m", max_epochs=3)
        assert "that it was given" not in caplog.text
        _train(inputs, tmp_path / "budget", budget="5m")
        assert "of the 5 min 0 s that it was given" in caplog.text
        _train(inputs, tmp_path / "open")
    assert "of the 30 min 0 s that it was given" in caplog.text


def test_the_store_goes_to_a_gpu_that_has_room_for_it_beside_the_training(tmp_path):
    """The training takes what was planned for it, and all that is free if that is not known."""
    inputs = prepare(tmp_path)
    store, device = open_store(inputs["sample"] / "store", mode="auto"), torch.device("meta")
    plan = read_plan(inputs["plan"])
    known, unknown = (plan.model_copy(update={"predicted": taken}) for taken in ({"train_memory_gib": 3.0}, {}))
    moved = run_folds.move_store_to_gpu(store, known, device, free_gib=8.0)
    assert moved.device == "meta" and moved.where == "GPU memory"
    assert "less than a third of the 8.0 GiB free on the GPU without the 3.0 GiB for training" in moved.reason
    assert run_folds.move_store_to_gpu(store, unknown, device, free_gib=8.0).device == "cpu"
    assert run_folds.move_store_to_gpu(store, known, torch.device("cpu"), free_gib=None) is store


def test_one_subject_trains_in_full_and_nothing_else(tmp_path):
    inputs = prepare(tmp_path, max_steps=1)
    write_json(inputs["sample"] / "folds.json", {"folds": [], "source": "made"})
    for folds in ((0,), "all"):
        with pytest.raises(ConfigError, match=r"are of one subject.*use train\.folds: full"):
            _train(inputs, tmp_path / "out", folds=folds)
    assert _train(inputs, tmp_path / "full", folds="full")["folds"] == ["full"]


def test_overlapping_structures_and_ignored_voxels_train(tmp_path):
    structures = {"large": (1, 2), "small": (2,)}
    nested = _train(prepare(tmp_path / "a", overlapping=True, structures=structures), tmp_path / "a/out")
    ignoring = _train(prepare(tmp_path / "b", ignore_value=9), tmp_path / "b/out")
    for summary in (nested, ignoring):
        assert all(0 <= dice <= 1 for dice in summary["validation"]["0"]["dice"].values())
    assert set(nested["validation"]["0"]["dice"]) == {"large", "small"}


def test_a_loss_that_does_not_fit_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match="structures of this data exclude one another"):
        _train(prepare(tmp_path), tmp_path / "out", loss={"name": "ce", "activation": "sigmoid"})


def test_weights_of_structures_decide_what_patches_are_centred_on(tmp_path):
    inputs = prepare(tmp_path)
    with pytest.raises(ConfigError, match="oversample_weights names tiny; the plan's structures are large, small"):
        _train(inputs, tmp_path / "unknown", oversample_weights={"tiny": 2.0})
    digests = [
        _bytes(tmp_path / name)["fold_0/last.safetensors"]
        for name, weights in (("even", None), ("ones", {"large": 1.0}), ("small", {"large": 0.0}))
        if _train(inputs, tmp_path / name, oversample=1.0, oversample_weights=weights)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_more_label_values_than_channels_are_refused(tmp_path):
    inputs = prepare(tmp_path)
    path = inputs["plan"] / "plan.json"
    write_json(path, {**read_json(path), "structures": {"large": [1]}})
    with pytest.raises(DataError, match="holds structure 2, but the network has channels for 1: large"):
        _train(inputs, tmp_path / "out")


def test_fine_tuning_begins_from_given_weights(tmp_path, caplog):
    inputs = prepare(tmp_path)
    _train(inputs, tmp_path / "first")
    last = tmp_path / "first/fold_0/last.safetensors"
    with caplog.at_level("INFO"):
        _train(inputs, tmp_path / "second", pretrained=last, optimizer={"name": "sgd", "lr": 1e-12})
    assert "pretrained weights:" in caplog.text
    for name, tensor in load_weights(tmp_path / "second/fold_0/last.safetensors").items():
        torch.testing.assert_close(tensor, load_weights(last)[name])
    with pytest.raises(DataError, match="neither a safetensors file nor a package"):
        _train(inputs, tmp_path / "third", pretrained=tmp_path)


def test_several_channels(tmp_path):
    channels = tuple(ChannelPlan(name=name, modality="MR", scheme="zscore") for name in ("T1", "T2", "FLAIR"))
    _train(prepare(tmp_path, channels=channels, max_steps=2), tmp_path / "out")
    weights = load_weights(tmp_path / "out/fold_0/last.safetensors").values()
    assert any(weight.ndim == 5 and weight.shape[1] == 3 for weight in weights)
