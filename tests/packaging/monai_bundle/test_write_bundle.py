"""The package is a MONAI bundle too: MONAI's own tools run it and give the labels of `segpipe predict`."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.base.errors import ConfigError
from pipeline.deploy.predict import predict
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.models.networks.network_config import UNetConfig
from pipeline.packaging.model_card import CardText
from pipeline.packaging.model_package import load_package
from pipeline.packaging.monai_bundle.bundle_config import NoBundleForm, inference_config
from pipeline.packaging.monai_bundle.bundle_metadata import (
    NEEDED,
    RELEASED_SCHEMA,
    SCHEMA,
    bundle_metadata,
    schema_text,
)
from pipeline.packaging.package_seal import write_seal
from pipeline.preprocessing.plan import ChannelPlan, Plan
from tests.packaging.finished_stages import SUMMARY
from tests.packaging.small_package import small_package

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("fire")
pytest.importorskip("ignite")

TEXT = CardText("hippocampus", "1.2.0", "", "Research", "", "CC-BY-4.0", ("A paper",))


def _plan(*channels: ChannelPlan) -> Plan:
    return Plan(
        spacing_mm=(1.0, 1.0, 1.5),
        channels=channels or (ChannelPlan(name="T1", modality="MR", scheme="zscore"),),
        structures={"anterior": (1,), "posterior": (7,)},
        patch_size=(32, 48, 16),
        batch_size=2,
        network={"name": "unet"},
        max_steps=1,
        precision="fp32",
        device="cpu",
    )


def _ct(lower: float) -> ChannelPlan:
    return ChannelPlan(name="CT", modality="CT", scheme="ct", lower=lower, upper=300.0, mean=100.0, std=50.0)


def _metadata(plan: Plan) -> dict:
    return bundle_metadata(plan, TEXT, SUMMARY, "CC-BY-SA-4.0")


def test_metadata_says_what_goes_in_and_comes_out() -> None:
    found = _metadata(_plan())
    jsonschema.validate(found, json.loads(schema_text()))
    data = found["network_data_format"]
    image, pred, segmentation = (
        data[a][b] for a, b in (("inputs", "image"), ("outputs", "pred"), ("post_processed_outputs", "pred"))
    )
    assert (image["num_channels"], image["spatial_shape"], image["value_range"]) == (1, [32, 48, 16], [])
    assert (image["modality"], image["format"], image["channel_def"]) == ("MR", "magnitude", {"0": "T1"})
    assert pred["channel_def"] == {"0": "background", "1": "anterior", "2": "posterior"}  # channels of the network
    assert segmentation["channel_def"] == {"0": "background", "1": "anterior", "7": "posterior"}  # values on disk
    assert segmentation["value_range"] == [0, 7]
    assert found["eval_metrics"] == {"dice anterior": 0.88, "dice posterior": 0.88, "dice mean": 0.88}
    assert found["schema"] == RELEASED_SCHEMA


def test_a_normalised_ct_has_the_range_that_clipping_leaves() -> None:
    """From -100 to 300 HU, less 100, over 50: from -4 to 4."""
    image = _metadata(_plan(_ct(-100.0)))["network_data_format"]["inputs"]["image"]
    assert (image["format"], image["value_range"]) == ("hounsfield", [-4.0, 4.0])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), "one"),
        (("schema",), "schema.json"),
        (("network_data_format", "inputs"), {}),
        (("network_data_format", "inputs", "image", "spatial_shape"), [32, 32]),
        (("network_data_format", "inputs", "image", "spatial_shape"), [0, 32, 32]),
        (("network_data_format", "outputs", "pred", "value_range"), [1]),
        (("network_data_format", "outputs", "pred", "channel_def"), {"background": "0"}),
        (("network_data_format", "outputs", "pred", "dtype"), "float"),
        (("required_packages_version",), {"nibabel": 5}),
    ],
)
def test_the_shipped_schema_refuses(path: tuple[str, ...], value: object) -> None:
    broken = copy.deepcopy(_metadata(_plan()))
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json.loads(schema_text()))


def test_channels_of_several_schemes_are_refused_and_not_normalised_alike() -> None:
    config = UNetConfig(channels=(4, 8, 16))
    with pytest.raises(NoBundleForm, match=r"normalised in different ways have no form as MONAI bundle"):
        inference_config(_plan(_ct(-100.0), _ct(-900.0)), config, PredictorConfig())
    inference_config(_plan(_ct(-100.0), _ct(-100.0)), config, PredictorConfig())


REGIONS = {"structures": {"whole": [1, 2], "core": [2]}, "overlapping": True}


def test_a_package_that_is_no_bundle_says_so_and_is_refused_where_it_was_asked_for(tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO", "pipeline"):
        folder = small_package(tmp_path / "auto", planned=REGIONS)
    assert "is no MONAI bundle: only a unet with structures of one label value each" in caplog.text
    assert not (folder / "models").exists() and not (folder / "configs").exists()
    with pytest.raises(ConfigError, match=r"package\.bundle: only a unet .*; set package\.bundle: auto"):
        small_package(tmp_path / "asked", planned=REGIONS, bundle=True)


def test_what_a_bundle_names_as_needed_is_what_it_is_tested_with(repository: Path) -> None:
    constraints = (repository / "constraints.txt").read_text(encoding="utf-8").split()
    pinned = dict(line.split("==") for line in constraints if "==" in line)
    assert {name: pinned[name] for name in NEEDED} == NEEDED


@pytest.mark.slow
def test_monai_runs_the_bundle_with_our_labels(segpipe_data: Path, tmp_path: Path, monkeypatch) -> None:
    """A scan as it is, and the same along other axes, oblique and with a border of zeros: cropped and resampled."""
    planned = {"spacing_mm": [1.2, 0.9, 1.1], "crop": "nonzero"}
    folder = small_package(tmp_path / "package", planned=planned)
    listed = load_package(folder).seal.files
    assert {"models/model.pt", "configs/metadata.json", "configs/inference.json", f"configs/{SCHEMA}"} <= set(listed)
    torch.load(folder / "models" / "model.pt", weights_only=True)
    scan = segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "plain.nii.gz").symlink_to(scan)
    nib.save(_padded_and_turned(nib.load(scan)), tmp_path / "scans" / "turned.nii.gz")
    predict(folder, tmp_path / "scans", tmp_path / "ours", "cpu", isolated=False)
    files = ("--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json")
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *files, "--dataset_dir", str(tmp_path / "scans"),
         "--output_dir", str(tmp_path / "theirs")],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("plain.nii.gz", "turned.nii.gz"):
        ours, theirs = (nib.load(tmp_path / whose / name) for whose in ("ours", "theirs"))
        assert len(np.unique(ours.dataobj)) > 1
        assert (ours.get_fdata() == theirs.get_fdata()).mean() >= 0.999
        assert np.allclose(ours.affine, theirs.affine, atol=1e-4)
        assert theirs.get_data_dtype() == "uint8"
    config, metadata = str(folder / "configs" / "inference.json"), str(folder / "configs" / "metadata.json")
    monai.bundle.verify_net_in_out("network_def", meta_file=metadata, config_file=config, device="cpu")
    monkeypatch.setattr("socket.socket.connect", _no_network)
    monai.bundle.verify_metadata(meta_file=metadata, filepath=str(folder / "configs" / SCHEMA))


def _no_network(*_: object) -> None:
    raise AssertionError("the check went to the network")


def _padded_and_turned(image: nib.Nifti1Image) -> nib.Nifti1Image:
    before = np.array([3, 7, 0])
    array = np.pad(image.get_fdata().astype(np.float32) + 1, list(zip(before, (9, 0, 5), strict=True)))
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ before
    cosine, sine = np.cos(0.2), np.sin(0.2)
    turn = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    oblique = nib.Nifti1Image(array, turn @ affine)
    return oblique.as_reoriented(nib.orientations.axcodes2ornt("LPS"))


def test_segpipe_reads_nothing_of_the_bundle_but_its_bytes(tmp_path: Path) -> None:
    """A hostile bundle in a package that is sealed anew: MONAI would run it, segpipe gives the labels of before."""
    package, scan, mark = small_package(tmp_path / "package"), tmp_path / "scan.nii.gz", tmp_path / "was_run"
    assert (package / "configs" / "inference.json").is_file() and (package / "models" / "model.pt").is_file()
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(36, 50, 34)).astype(np.float32), np.eye(4)), scan)
    seal = load_package(package).seal
    predict(package, scan, tmp_path / "before.nii.gz", "cpu", isolated=False)

    class Bomb:
        def __reduce__(self) -> tuple:
            return (open, (str(mark), "w"))

    (package / "models" / "model.pt").write_bytes(pickle.dumps(Bomb()))
    hostile = {"run": [f"$open({str(mark)!r}, 'w')"], "network_def": f"$open({str(mark)!r}, 'w')"}
    (package / "configs" / "inference.json").write_text(json.dumps(hostile))
    write_seal(package, seal.name, seal.version, seal.weights, seal.output_slug)
    predict(package, scan, tmp_path / "after.nii.gz", "cpu", isolated=False)
    assert not mark.exists()
    before, after = (np.asarray(nib.load(tmp_path / f"{when}.nii.gz").dataobj) for when in ("before", "after"))
    np.testing.assert_array_equal(before, after)
