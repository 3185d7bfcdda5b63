"""Folds for cross-validation: the manifest's own where it has them, else made so that no subject is split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pipeline.base.errors import DataError
from pipeline.data.cases import Case
from pipeline.data.random import Purpose, generator


def make_folds(cases: Sequence[Case], count: int, seed: int = 0) -> dict[str, Any]:
    """`folds.json`: for each fold the ids to train and to validate on, and whose decision it was.

    Cases with a fold of their own keep it; the others go, subject by subject in an order drawn from `seed`, to the
    fold of the subject's other cases or else to the smallest one. There are never more folds than subjects. Raises a
    DataError where the manifest puts one subject into two folds, or leaves one of its folds empty.
    """
    subjects: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        subjects[case.subject].append(case)
    own = {subject: _own_fold(subject, members) for subject, members in subjects.items()}
    given = [fold for fold in own.values() if fold is not None]
    number = max(given) + 1 if given else min(count, len(subjects))
    folds: list[list[str]] = [[] for _ in range(number)]
    names = sorted(subjects)
    order = [names[i] for i in generator(seed, Purpose.FOLDS).permutation(len(names))]
    # The largest subjects first, so that folds come out even.
    order.sort(key=lambda subject: (own[subject] is None, -len(subjects[subject])))
    for subject in order:
        fold = own[subject]
        chosen = folds[fold] if fold is not None else min(folds, key=len)
        chosen += [case.id for case in subjects[subject]]
    if empty := [n for n, fold in enumerate(folds) if not fold]:
        raise DataError(
            f"the manifest's folds go up to {number - 1}, but no case is validated in fold "
            f"{', '.join(map(str, empty))}; count them from 0 without gaps"
        )
    everyone = [case.id for case in cases]
    return {
        "folds": [
            {"train": [name for name in everyone if name not in set(fold)], "val": sorted(fold)} for fold in folds
        ]
        if number > 1
        else [],
        "source": "manifest" if given else "made",
    }


def _own_fold(subject: str, members: Sequence[Case]) -> int | None:
    given = {case.fold for case in members if case.fold is not None}
    if len(given) > 1:
        names = ", ".join(f"{case.id} in fold {case.fold}" for case in members if case.fold is not None)
        raise DataError(f"subject {subject} is in several folds ({names}); give all its cases one fold in the manifest")
    return next(iter(given), None)
