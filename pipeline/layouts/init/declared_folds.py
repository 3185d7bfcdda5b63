"""Folds and splits that a data set declares, as folds counted from 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.layouts.dataset_listing import DatasetListing, ListedCase
from pipeline.layouts.folders.name_vocabulary import is_validating


def with_folds_from_0(found: DatasetListing) -> DatasetListing:
    """Declared folds counted from 0 without gaps, as runs name them: 1 to 5 become 0 to 4."""
    given = sorted({case.fold for case in found.cases if case.split == "training" and case.fold is not None})
    number = {fold: i for i, fold in enumerate(given)}
    if given == list(number.values()):
        return found
    cases = [
        replace(case, fold=number[case.fold]) if case.split == "training" and case.fold is not None else case
        for case in found.cases
    ]
    note = f"folds {', '.join(map(str, given))} are counted from 0 here: {', '.join(map(str, number.values()))}"
    return replace(found, cases=tuple(cases), notes=(*found.notes, note))


def with_split_as_fold_0(found: DatasetListing) -> DatasetListing:
    """Where only fold 0 is declared (one split into training and validation), all other cases are put into fold 1.

    So fold 0 trains and validates on just what was declared; without it, open cases would join its validation.
    """
    folds = {case.fold for case in found.cases if case.split == "training"}
    if folds != {0, None}:
        return found
    cases = [replace(c, fold=1) if c.split == "training" and c.fold is None else c for c in found.cases]
    note = "fold 0 is the declared split into training and validation; fold 1 is its reverse"
    return replace(found, cases=tuple(cases), notes=(*found.notes, note))


def with_validation_folder(folder: Path, cases: Sequence[ListedCase]) -> list[ListedCase]:
    """Fold 0 is validated on `imagesVal`, where there are other cases to train on."""
    training = [case for case in cases if case.split == "training"]
    validating = {case.id for case in training if is_validating(folder, case.images[0])}
    if len(validating) == len(training):
        return list(cases)
    return [replace(case, fold=0) if case.id in validating else case for case in cases]
