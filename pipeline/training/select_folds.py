"""Which folds are trained, and what each of them trains and validates on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.files import read_json


@dataclass(frozen=True)
class FoldSplit:
    """One training: its name (0, 1, ... or full), the cases it learns from and those it validates on."""

    name: str
    train: tuple[str, ...]
    val: tuple[str, ...]

    def folder(self, out: Path) -> Path:
        """Where its files lie in the stage's folder."""
        return out / f"fold_{self.name}"


def folds_to_train(wanted: Sequence[int] | Literal["all", "full"], sample_folder: Path) -> list[FoldSplit]:
    """The folds asked for, from `folds.json`. `full` is one model on every stored case, which leaves none to validate.

    Raises a ConfigError where a fold is not there, as where all cases are of one subject, which cannot be divided.
    """
    if wanted == "full":
        return [FoldSplit("full", tuple(sorted(read_json(sample_folder / "store" / "store.json")["cases"])), ())]
    listed: list[dict[str, Any]] = read_json(sample_folder / "folds.json")["folds"]
    numbers = fold_numbers(wanted, len(listed))
    return [_with_cases(FoldSplit(str(n), tuple(listed[n]["train"]), tuple(listed[n]["val"]))) for n in numbers]


def fold_numbers(wanted: Sequence[int] | str, count: int) -> Sequence[int]:
    """The folds asked for (or `all`) of `count` that there are; a ConfigError where one is not there, or none is."""
    if not count:
        raise ConfigError(
            "train.folds: all training cases are of one subject, or in one fold of the manifest, so that no fold can "
            "train on some and validate on others; use train.folds: full (one model on every case, not validated), "
            "or add subjects"
        )
    numbers = range(count) if isinstance(wanted, str) else wanted
    if beyond := [number for number in numbers if number >= count]:
        raise ConfigError(f"train.folds names {', '.join(map(str, beyond))}, but there are only folds 0 to {count - 1}")
    return numbers


def _with_cases(fold: FoldSplit) -> FoldSplit:
    if not fold.train:
        raise DataError(f"fold {fold.name} has no training cases; use fewer folds (sample.folds) or more cases")
    return fold
