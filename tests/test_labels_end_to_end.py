"""Label values with gaps, regions and an ignore value through a whole run, from the manifest to a prediction.

What evaluation says of volumes is held against what numpy counts in the files.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.dataset.phantoms import make_phantoms
from pipeline.preprocessing.plan import read_plan

pytestmark = pytest.mark.slow

CONFIG = """\
name: tiny
device: cpu
data: {manifest: phantoms/manifest.json}
executor: {name: serial}
plan: {patch_size: [16, 16, 16], batch_size: 1, precision: fp32}
train:
  max_steps: 3
  network: {name: unet, channels: [4, 8, 8]}
  validation: {interval: 3, cases: 1}
  tensorboard: false
  num_threads: 1
  loss: LOSS
evaluate: {bootstrap_resamples: 100}
"""
GAPS = {1: 5, 2: 70, 3: 300}
"""Organ, cyst and nodule of the phantoms, renumbered."""
IGNORED = 999
EXCLUSIVE: dict[str, Any] = {"labels": {"organ": [5, 300], "cyst": 70}, "ignore_label": IGNORED}
OVERLAPPING = EXCLUSIVE | {"labels": {"whole": [5, 300], "nodule": 300, "cyst": 70}, "overlapping": True}
WEIGHTED = "{name: ce, class_weights: inverse_frequency}"


def dataset(root: Path, meaning: dict[str, Any]) -> None:
    """Phantoms whose labels have gaps and, through the middle of the organ, three planes that nobody judged."""
    manifest_path = make_phantoms(root / "phantoms", cases=4, shape=(24, 24, 16))
    for path in sorted((root / "phantoms/labels").iterdir()):
        image = nib.load(path)
        old = np.asarray(image.dataobj)
        new = np.zeros(old.shape, np.int16)
        for value, renumbered in GAPS.items():
            new[old == value] = renumbered
        new[new.shape[0] // 2 - 1 : new.shape[0] // 2 + 2] = IGNORED
        nib.save(nib.Nifti1Image(new, image.affine), path)
    manifest = json.loads(manifest_path.read_text(encoding="utf-8")) | meaning
    manifest["cases"] = [{k: v for k, v in case.items() if k != "sha256"} for case in manifest["cases"]]
    manifest_path.write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("meaning", "loss"),
    [(EXCLUSIVE, "{name: dice_ce}"), (EXCLUSIVE, WEIGHTED), (OVERLAPPING, "{name: dice_ce}")],
    ids=["exclusive", "weighted", "overlapping"],
)
def test_gaps_regions_and_ignored_voxels_from_manifest_to_prediction(meaning, loss, tmp_path):
    dataset(tmp_path, meaning)
    (tmp_path / "tiny.yaml").write_text(CONFIG.replace("LOSS", loss), encoding="utf-8")
    assert main(["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]) == 0
    plan, regions = read_plan(tmp_path / "run/plan"), regions_of(meaning)
    assert plan.out_channels == 3 and plan.structures == regions and plan.ignore_value == IGNORED
    stored = np.load(next((tmp_path / "run/sample/store").glob("*.label.npy")))
    assert (stored == np.iinfo(stored.dtype).max).any()  # ignored voxels have their mark

    with (tmp_path / "run/evaluate/per_case.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["structure"] for row in rows} == set(regions)
    for row in rows:
        reference = nib.load(tmp_path / f"phantoms/labels/{row['case']}.nii.gz")
        predicted = nib.load(tmp_path / f"run/infer/predictions/{row['case']}.nii.gz")
        voxel_ml = abs(np.linalg.det(reference.affine[:3, :3])) / 1000
        truth, pred = (np.asarray(image.dataobj) for image in (reference, predicted))
        values = regions[row["structure"]]
        assert float(row["volume_ref_ml"]) == pytest.approx(np.isin(truth, values).sum() * voxel_ml, rel=1e-3)
        judged = np.isin(pred, values) & (truth != IGNORED)
        assert float(row["volume_pred_ml"]) == pytest.approx(judged.sum() * voxel_ml, rel=1e-3, abs=1e-6)

    scan = next((tmp_path / "phantoms/images").iterdir())
    arguments = ["--model", str(tmp_path / "run/package"), "--input", str(scan), "--device", "cpu"]
    assert main(["predict", *arguments, "--output", str(tmp_path / "out.nii.gz")]) == 0
    result = nib.load(tmp_path / "out.nii.gz")
    declared = {0, *(value for region in regions.values() for value in region)}
    assert {int(value) for value in np.unique(np.asarray(result.dataobj))} <= declared
    assert np.array_equal(result.affine, nib.load(scan).affine)


def regions_of(meaning: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    labels = meaning["labels"].items()
    return {name: tuple(value) if isinstance(value, list) else (value,) for name, value in labels}
