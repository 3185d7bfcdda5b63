"""A finished run as the stages leave it, made in a second: two spheres in noise, predictions that are a little off."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import write_json
from pipeline.base.hashing import digest_of, sha256_of
from pipeline.base.machine import Runtime
from pipeline.dataset.loaded_cases import Case, Cases, Channel
from pipeline.evaluation.evaluate_pairs import Evaluation, Pair, evaluate_pairs
from pipeline.preprocessing.plan import ChannelPlan, Plan, write_plan

STRUCTURES: dict[str, tuple[int, ...]] = {"organ": (1,), "cyst": (4,)}
SHAPE = (24, 28, 16)
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1.0, 0, -10], [0, 0, 2.0, 5], [0, 0, 0, 1]])  # LAS, 1 × 1 × 2 mm
STAGES = ("load", "plan", "sample", "train", "infer", "evaluate")


def fake_run(
    root: Path,
    ids: Sequence[str] = ("case_a", "case_b", "case_c", "case_d", "case_e"),
    failed: Mapping[str, str] | None = None,
    faults: Sequence[Mapping[str, Any]] = (),
    structures: Mapping[str, tuple[int, ...]] = STRUCTURES,
    shift_of: Mapping[str, int] | None = None,
    channels: Sequence[str] = ("T1",),
    postprocess: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Writes data and finished stages below `root` and returns the stages' folders by name.

    failed: cases without a prediction, with the message. shift_of: by how many voxels a case's prediction is off.
    channels: names; the spheres are seen in the last one, the others are noise.
    """
    run, data = root / "run", root / "data"
    folders = {name: run / name for name in STAGES}
    for folder in (*folders.values(), data, folders["infer"] / "predictions"):
        folder.mkdir(parents=True)
    failed, pairs = failed or {}, []
    for number, case in enumerate(ids):
        image, label = _volumes(number)
        shift = (shift_of or {}).get(case, number % 3)
        noise = np.random.default_rng(number).normal(0, 12, (*SHAPE, len(channels) - 1)).astype(np.float32)
        _save(data / f"{case}.nii.gz", np.concatenate([noise, image[..., None]], 3) if len(channels) > 1 else image)
        _save(data / f"{case}_label.nii.gz", label)
        if case not in failed:
            prediction = folders["infer"] / "predictions" / f"{case}.nii.gz"
            _save(prediction, np.roll(label, shift, axis=1))
            pairs.append(Pair(case, prediction, data / f"{case}_label.nii.gz", subject=case))
    _load(folders["load"], data, ids, structures, faults, channels)
    write_plan(folders["plan"], _plan(structures, channels))
    write_json(folders["sample"] / "folds.json", {"folds": [{"train": [], "val": list(ids)}], "source": "made"})
    _train(folders["train"], structures)
    _infer(folders["infer"], ids, failed)
    if postprocess is not None:
        write_json(folders["infer"] / "postprocess.json", postprocess)
    evaluate_pairs(
        pairs, Evaluation(structures, bootstrap_resamples=100), folders["evaluate"], Runtime("cpu", "serial"), failed
    )
    for name, folder in folders.items():
        _finish(name, folder)
    return folders


def _volumes(number: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    label = np.zeros(SHAPE, np.uint8)
    label[(x - 9) ** 2 + (y - 12) ** 2 + (2 * (z - 8)) ** 2 < (6 + number % 4 / 2) ** 2] = 1
    label[(x - 17) ** 2 + (y - 20) ** 2 + (2 * (z - 7)) ** 2 < 9] = 4
    noise = np.random.default_rng(number).normal(0, 12, SHAPE)
    return (100 * (label > 0) + noise).astype(np.float32), label


def _save(path: Path, array: NDArray[Any]) -> None:
    nib.save(nib.Nifti1Image(array, AFFINE), path)


def _load(
    folder: Path,
    data: Path,
    ids: Sequence[str],
    structures: Mapping[str, tuple[int, ...]],
    faults: Sequence[Mapping[str, Any]],
    channels: Sequence[str],
) -> None:
    cases = [
        Case(
            id=case,
            subject=f"subject of {case}",
            images=(f"{case}.nii.gz",),
            label=f"{case}_label.nii.gz",
            split="training",
            shape=SHAPE,
            spacing_mm=(1.0, 1.0, 2.0),
            orientation="LAS",
            affine=tuple(tuple(row) for row in AFFINE.tolist()),
            sha256={f"{case}.nii.gz": sha256_of(data / f"{case}.nii.gz")},
            label_voxels=dict.fromkeys(structures, 500),
        )
        for case in ids
    ]
    content = Cases(
        dataset="spheres",
        channels=tuple(Channel(name=name) for name in channels),
        structures=dict(structures),
        licence="CC0-1.0",
        cases=tuple(cases),
    )
    write_json(folder / "cases.json", content.model_dump(mode="json"))
    write_json(folder / "fingerprint.json", {"spacings_mm": [[1, 1, 2]]})
    write_json(folder / "faults.json", list(faults))
    write_json(folder / "location.json", {"root": str(data)})


def _plan(structures: Mapping[str, tuple[int, ...]], channels: Sequence[str]) -> Plan:
    return Plan(
        spacing_mm=(1.0, 1.0, 2.0),
        channels=tuple(ChannelPlan(name=name, modality="MR", scheme="zscore") for name in channels),
        structures=dict(structures),
        patch_size=(24, 24, 16),
        batch_size=2,
        network={"name": "unet", "channels": [16, 32, 64]},
        max_steps=200,
        precision="fp32",
        device="cpu",
        predicted={"train_memory_gib": 0.8},
        reasons={"spacing_mm": "the median of the data set", "patch_size": "covers the median image"},
    )


def _train(folder: Path, structures: Mapping[str, tuple[int, ...]]) -> None:
    fold = folder / "fold_0"
    fold.mkdir()
    (fold / "last.safetensors").write_bytes(b"weights")
    dice = ["dice_mean", *(f"dice_{name}" for name in structures)]
    with (fold / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "lr", "loss", "grad_norm", *dice])
        for step in range(10, 201, 10):
            scores = [1 - 0.9 ** (step / 20) for _ in dice] if step % 50 == 0 else [""] * len(dice)
            writer.writerow([step, 0.01 * (1 - step / 201), 1.5 * 0.98 ** (step / 2), 1.0, *scores])
    (fold / "timing.csv").write_text(
        "step,seconds,data_s,step_s,validation_s,patches_per_s,peak_memory_gib\n"
        "100,20,1,18,1,10,0.7\n200,41,1,19,1,10,0.7\n"
    )
    write_json(
        folder / "train.json",
        {
            "folds": [0],
            "network": {"name": "unet"},
            "loss": {"name": "dice_ce"},
            "precision": "fp32",
            "steps": 200,
            "validation": {"0": {"dice": dict.fromkeys(structures, 0.9), "best_step": 150}},
        },
    )


def _infer(folder: Path, ids: Sequence[str], failed: Mapping[str, str]) -> None:
    entries = [
        {
            "id": case,
            "status": "failed" if case in failed else "done",
            "folds": [0],
            "prediction": None if case in failed else f"predictions/{case}.nii.gz",
            "message": failed.get(case, ""),
        }
        for case in ids
    ]
    write_json(folder / "cases.json", {"cases": entries})


def _finish(name: str, folder: Path) -> None:
    outputs = {
        path.relative_to(folder).as_posix(): {"digest": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    request = {"stage": name, "version": 1, "config": {}, "inputs": {}, "sources": {}}
    write_json(
        folder / "stage.json",
        {"request": request, "request_digest": digest_of(request), "outputs": outputs, "failed_cases": []},
    )
    timing = {
        "seconds": 12.5,
        "peak_memory_gib": 0.7,
        "finished": "2026-11-21T08:00:00+00:00",
        "python": "3.12.1",
        "platform": "Linux",
        "cores": 2,
        "packages": {"torch": "2.13.0", "monai": "1.6.1"},
        "git_revision": "abc123",
    }
    write_json(folder / "timing.json", timing)
