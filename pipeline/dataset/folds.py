"""Folds for cross-validation: the manifest's own where it has them, else made so that no subject is split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from pipeline.base.errors import DataError
from pipeline.base.rng import RandomPurpose, generator
from pipeline.dataset.loaded_cases import Case


class HasFold(Protocol):
    """A case, of a manifest or as `load` recorded it."""

    @property
    def id(self) -> str: ...

    @property
    def subject(self) -> str | None: ...

    @property
    def fold(self) -> int | None: ...


def given_folds(cases: Iterable[HasFold]) -> list[int]:
    """The numbers of the manifest's folds, in order, none where it gives none. `make_folds` counts these from 0.

    Those between them, and a second one, count too where there are subjects without a fold to fill them.
    """
    cases = list(cases)
    given = sorted({case.fold for case in cases if case.fold is not None})
    if not given:
        return []
    has_fold = {case.subject or case.id for case in cases if case.fold is not None}
    free = len({case.subject or case.id for case in cases} - has_fold)
    every = list(range(given[-1] + 1))
    used = every if len(every) - len(given) <= free else given
    return [*used, used[-1] + 1] if len(used) == 1 and free else used


def make_folds(cases: Sequence[Case], count: int, seed: int = 0) -> dict[str, Any]:
    """`folds.json`: for each fold the ids to train and to validate on, and whose decision it was.

    Cases with a fold of their own keep it. The others go, subject by subject in an order drawn from `seed`, to the fold
    of the subject's other cases or else to the smallest one. Folds that nobody is in then (left out, never given) are
    passed over: 0 and 2 become 0 and 1. There are never more folds than subjects. Raises a DataError where the manifest
    puts one subject into two folds.
    """
    subjects: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        subjects[case.subject].append(case)
    own = {subject: _own_fold(subject, members) for subject, members in subjects.items()}
    given = given_folds(cases)
    number = len(given) or min(count, len(subjects))
    folds: list[list[str]] = [[] for _ in range(number)]
    names = sorted(subjects)
    order = [names[i] for i in generator(seed, RandomPurpose.FOLDS).permutation(len(names))]
    # The largest subjects first, so that folds come out even.
    order.sort(key=lambda subject: (own[subject] is None, -len(subjects[subject])))
    for subject in order:
        fold = own[subject]
        chosen = folds[given.index(fold)] if fold is not None else min(folds, key=len)
        chosen += [case.id for case in subjects[subject]]
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
