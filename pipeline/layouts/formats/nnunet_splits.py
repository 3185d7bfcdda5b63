"""nnU-Net's splits_final.json: folds read from it and written to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import read_json

SPLITS = "splits_final.json"


def read_folds(folder: Path, training: Sequence[str], notes: list[str]) -> dict[str, int]:
    """Case id to the fold that validates it, from `splits_final.json` beside dataset.json or in nnUNet_preprocessed.

    Empty, with a note, where a case is validated in two folds: a manifest cannot say that.
    """
    places = [folder / SPLITS, folder.parent.parent / "nnUNet_preprocessed" / folder.name / SPLITS]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    splits = read_json(path)
    if not isinstance(splits, list) or not all(isinstance(fold, dict) and "val" in fold for fold in splits):
        raise DataError(f'{path}: is not a list of {{"train": [ids], "val": [ids]}}')
    folds: dict[str, int] = {}
    for number, fold in enumerate(splits):
        for case in fold["val"]:
            if folds.setdefault(case, number) != number:
                notes.append(f"{path.name}: {case} is validated in folds {folds[case]} and {number}; splits left out")
                return {}
    unknown = sorted(folds.keys() - set(training))
    if unknown:
        notes.append(f"{path.name} names {len(unknown)} unknown cases: {', '.join(unknown)}")
    notes.append(f"folds are those of {path.name}")
    for number, fold in enumerate(splits):
        others = {case for case in training if folds.get(case) != number}
        if "train" in fold and set(fold["train"]) != others:
            notes.append(
                f"{path.name}: fold {number} trains on {len(fold['train'])} cases; here on all {len(others)} that it "
                "does not validate"
            )
    if left := len(set(training) - folds.keys()):
        notes.append(f"{path.name} validates {left} training cases in no fold; they are put into the smallest ones")
    return folds
