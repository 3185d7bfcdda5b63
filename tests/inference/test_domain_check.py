"""The domain guard: silent on the training data however its axes lie, and plain about what is not like it."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.deploy.predict import predict
from pipeline.deploy.result_tables import write_results
from pipeline.inference.domain_check import domain_shift_reasons
from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.packaging.model_package import load_package
from pipeline.preprocessing.plan import ChannelPlan, Plan
from tests.packaging.small_package import small_package

MR = {"channel": "T1", "p005_min": 0.0, "p005_max": 10.0, "p995_min": 80.0, "p995_max": 1.7e6}
CT = {"channel": "CT", "p005_min": -1024.0, "p005_max": -1000.0, "p995_min": 900.0, "p995_max": 1400.0}


def _fingerprint(intensity: dict) -> dict:
    return {"spacings_mm": [[1, 1, 1], [1, 1, 1.2]], "shapes": [[35, 51, 35], [34, 50, 40]], "intensity": [intensity]}


def _plan(scheme: str = "zscore") -> Plan:
    return Plan(
        spacing_mm=(1.0, 1.0, 1.0),
        channels=(ChannelPlan(name="T1", modality="MR", scheme=scheme),),
        structures={"a": (1,)},
        patch_size=(32, 32, 32),
        batch_size=1,
        network={},
        max_steps=1,
        precision="fp32",
        device="cpu",
    )


def _scan(low: float = 0, high: float = 100, shape=(35, 51, 35), affine=None, header=None) -> Volume:
    array = np.linspace(low, high, int(np.prod(shape)), dtype=np.float32).reshape(1, *shape)
    return Volume(array, Grid(shape, np.eye(4) if affine is None else affine), header or {})


def test_a_scan_like_the_training_data_passes_in_all_48_orientations() -> None:
    image = nib.Nifti1Image(np.zeros((35, 51, 35), np.float32), np.eye(4))
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            turned = image.as_reoriented(np.array(list(zip(axes, flips, strict=True))))
            scan = _scan(shape=turned.shape, affine=turned.affine)
            assert domain_shift_reasons(scan, _plan(), _fingerprint(MR)) == ()


def test_a_rescaled_mr_passes() -> None:
    assert domain_shift_reasons(_scan(0, 4e7), _plan(), _fingerprint(MR)) == ()


@pytest.mark.parametrize(
    ("scan", "scheme", "intensity", "said"),
    [
        (_scan(shape=(35, 51, 8), affine=np.diag([1, 1, 5, 1.0])), "zscore", MR, "spacing: 1 × 1 × 5 mm"),
        (_scan(shape=(200, 200, 180)), "zscore", MR, "field of view: 180 × 200 × 200 mm"),
        (_scan(7, 7), "zscore", MR, "is constant"),
        (_scan(-1000, 1000), "zscore", MR, "another modality"),
        (_scan(0, 2400), "ct", CT, "is it in Hounsfield units"),
        (_scan(-32000, 1000), "ct", CT, "spans -3.18"),
        (_scan(header={"nifti": nib.Nifti1Header()}), "zscore", MR, "left and right are a guess"),
    ],
)
def test_what_is_not_like_the_training_data_is_named_once(
    scan: Volume, scheme: str, intensity: dict, said: str
) -> None:
    found = domain_shift_reasons(scan, _plan(scheme), _fingerprint(intensity))
    assert len(found) == 1
    assert said in found[0]


def test_a_pet_in_another_unit_is_named() -> None:
    """Standardised uptake and Bq/ml differ by a factor of thousands, which no rescaling of a network's undoes."""
    pet = {"channel": "PET", "p005_min": 0.0, "p005_max": 0.1, "p995_min": 3.0, "p995_max": 9.0}
    plan = _plan().model_copy(update={"channels": (ChannelPlan(name="PET", modality="PET", scheme="zscore"),)})
    assert domain_shift_reasons(_scan(0, 8), plan, _fingerprint(pet)) == ()
    (said,) = domain_shift_reasons(_scan(0, 40_000), plan, _fingerprint(pet))
    assert said.startswith("intensity: channel PET spans")


def test_axes_tilted_far_from_the_bodys_are_named_with_the_angle() -> None:
    c, s = np.cos(np.radians(40)), np.sin(np.radians(40))
    tilted = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    (said,) = domain_shift_reasons(_scan(affine=tilted), _plan(), _fingerprint(MR))
    assert "tilted by 40°" in said
    assert domain_shift_reasons(_scan(affine=tilted), _plan(), _fingerprint(MR) | {"tilt_degrees_max": 30.0}) == ()
    (said,) = domain_shift_reasons(_scan(affine=tilted), _plan(), _fingerprint(MR) | {"tilt_degrees_max": 10.0})
    assert "tilted by 40° against the body's, training data by up to 10°" in said


def test_a_hounsfield_scan_within_the_range_passes() -> None:
    assert domain_shift_reasons(_scan(-1024, 1300), _plan("ct"), _fingerprint(CT)) == ()


def _write(path: Path, shape: tuple[int, int, int], low: float = 0, spacing_mm: float = 1, code: int = 1) -> None:
    voxels = np.random.default_rng(0).uniform(low, 100, shape).astype(np.float32)
    image = nib.Nifti1Image(voxels, np.diag([1, 1, spacing_mm, 1.0]))
    image.set_sform(image.affine, code)
    image.set_qform(image.affine, code)
    nib.save(image, path)


def test_every_comparison_is_made_at_prediction_told_in_both_files_and_refused_when_strict(tmp_path: Path) -> None:
    package = small_package(tmp_path / "model")
    scans, out = tmp_path / "in", tmp_path / "out"
    scans.mkdir()
    _write(scans / "usual.nii.gz", (34, 48, 30))
    _write(scans / "orientation.nii.gz", (34, 48, 30), code=0)
    _write(scans / "spacing.nii.gz", (34, 48, 6), spacing_mm=5)
    _write(scans / "field.nii.gz", (9, 10, 8))
    _write(scans / "intensity.nii.gz", (34, 48, 30), low=-100)
    found = predict(package, scans, out, "cpu", isolated=False)
    write_results(out, found, load_package(package))
    with (out / "cases.csv").open(newline="", encoding="utf-8") as stream:
        told = {row["case"]: row["message"] for row in csv.DictReader(stream)}
    assert {
        case["case"]: case["message"]
        for case in json.loads((out / "volumes.json").read_text(encoding="utf-8"))["cases"]
    } == told
    said = {"orientation": "orientation:", "spacing": "spacing:", "field": "field of view:", "intensity": "intensity:"}
    for case, words in said.items():
        assert words in told[case]
    assert told["usual"] == ""
    strict = {r.id: r for r in predict(package, scans, tmp_path / "strict", "cpu", strict=True, isolated=False)}
    assert {case for case, result in strict.items() if result.status == "failed"} == set(said)
    assert all(words in strict[case].message for case, words in said.items()), strict
    assert {path.name for path in (tmp_path / "strict").glob("*.nii.gz")} == {"usual.nii.gz"}
