"""Reads scores per case back: of a run, of a folder or file that `evaluate` or `score` wrote, or of nnU-Net."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.files import read_json
from pipeline.evaluation.metrics.score_case import METRICS
from pipeline.io.image_file_names import stem

Values = tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """One method's scores. table: metrics by case and structure, undefined ones left out.

    label_values: what a structure is made of. definitions: how the metrics are defined, where the source says so.
    """

    name: str
    path: Path
    table: Mapping[tuple[str, str], Mapping[str, float]]
    subjects: Mapping[str, str]
    label_values: Mapping[str, Values]
    definitions: Mapping[str, Any]

    @property
    def cases(self) -> list[str]:
        """Ids of all cases, in the order of the source."""
        return list(dict.fromkeys(case for case, _ in self.table))

    @property
    def structures(self) -> list[str]:
        """Names of all structures, in the order of the source."""
        return list(dict.fromkeys(structure for _, structure in self.table))

    def column(self, structure: str, metric: str, cases: Sequence[str]) -> NDArray[np.float64]:
        """A metric over `cases`, NaN where it is undefined or not there."""
        return np.array([self.table.get((case, structure), {}).get(metric, np.nan) for case in cases], dtype=float)


def read_scores(paths: Sequence[Path]) -> list[Scores]:
    """The scores behind each path, under names that differ and structure names that agree.

    A path is a run folder, a folder with `per_case.csv`, one of its two files, or nnU-Net's `summary.json` (or the
    folder that holds it). nnU-Net knows label values only: they take the names of an equal structure elsewhere.
    """
    found = [_read(path) for path in paths]
    stated = [scores for scores in found if scores.definitions]
    names = {tuple(sorted(values)): name for scores in stated for name, values in scores.label_values.items()}
    return [
        _renamed(replace(scores, name=name), names)
        for scores, name in zip(found, _distinct_names([scores.path for scores in found]), strict=True)
    ]


def _read(path: Path) -> Scores:
    """One source, whatever it is; a DataError says what was looked for."""
    if path.is_dir():
        inside = [path / "evaluate" / "per_case.csv", path / "per_case.csv", path / "summary.json"]
        file = next((candidate for candidate in inside if candidate.is_file()), None)
        if file is None:
            raise DataError(f"{path}: no scores here; looked for evaluate/per_case.csv, per_case.csv, summary.json")
        path = file
    if path.suffix == ".csv":
        return _read_per_case(path)
    summary = read_json(path)
    if isinstance(summary, dict) and "metric_per_case" in summary:
        return _read_nnunet(path, summary)
    if isinstance(summary, dict) and "structures" in summary:
        if not path.with_name("per_case.csv").is_file():
            raise DataError(f"{path}: holds means only; comparing case by case needs the per_case.csv written with it")
        return _read_per_case(path.with_name("per_case.csv"))
    raise DataError(f"{path}: neither segpipe's nor nnU-Net's summary.json")


def _read_per_case(path: Path) -> Scores:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        table = {(row["case"], row["structure"]): _numbers(row) for row in rows}
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (KeyError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a per_case.csv of segpipe ({error})") from None
    summary = read_json(path.with_name("summary.json")) if path.with_name("summary.json").is_file() else {}
    values = {name: tuple(found) for name, found in summary.get("label_values", {}).items()}
    subjects = {row["case"]: row.get("subject") or row["case"] for row in rows}
    return Scores("", path, table, subjects, values, summary.get("definitions", {}))


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {metric: float(row[metric]) for metric in METRICS if row.get(metric)}


def _read_nnunet(path: Path, summary: Mapping[str, Any]) -> Scores:
    """nnU-Net's `metric_per_case`: metrics by label value, or by a tuple of values for a region."""
    table: dict[tuple[str, str], dict[str, float]] = {}
    label_values: dict[str, Values] = {}
    try:
        for entry in summary["metric_per_case"]:
            # nnU-Net writes paths as its machine spells them; this splits them at / and at \
            case = stem(Path(PureWindowsPath(entry.get("reference_file") or entry["prediction_file"]).name))
            found = {_label_values(key): metrics for key, metrics in entry["metrics"].items()}
            for values in sorted(found, key=lambda some: (len(some), some)):  # as text, 10 would come before 2
                if values != (0,):  # the background
                    name = "label " + "+".join(map(str, values))
                    label_values[name] = values
                    table[case, name] = _nnunet_metrics(found[values])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not as nnU-Net writes its summary.json ({error!r})") from None
    return Scores("", path, table, {case: case for case, _ in table}, label_values, {})


def _label_values(key: str) -> Values:
    """The values behind `1`, `(1,)` or `(1, 2)`, also where numpy wrote them: `(np.int64(1), np.int64(2))`."""
    return tuple(sorted(int(number) for number in re.findall(r"\d+(?=\s*(?:[,)]|$))", key)))


def _nnunet_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    found = {"dice": metrics["Dice"], "iou": metrics["IoU"]}
    both, n_pred, n_ref = metrics["TP"], metrics["TP"] + metrics["FP"], metrics["TP"] + metrics["FN"]
    found |= {"precision": both / n_pred if n_pred else np.nan, "recall": both / n_ref if n_ref else np.nan}
    return {name: float(value) for name, value in found.items() if not np.isnan(value)}


def _renamed(scores: Scores, names: Mapping[Values, str]) -> Scores:
    """nnU-Net's structures under the names that another source has for their label values."""
    if scores.definitions:
        return scores
    new = {old: names.get(values, old) for old, values in scores.label_values.items()}
    table = {(case, new.get(structure, structure)): row for (case, structure), row in scores.table.items()}
    return replace(scores, table=table, label_values={new[old]: v for old, v in scores.label_values.items()})


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Each path's last folder, with as many above it as it takes to tell the paths apart."""
    untold = {"evaluate", *(path.resolve().anchor for path in paths)}
    folders = [[part for part in path.resolve().parent.parts if part not in untold] or [path.stem] for path in paths]
    for depth in range(1, max(map(len, folders)) + 1):
        names = ["/".join(folder[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    last = [folder[-1] for folder in folders]
    return [name if last.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(last, start=1)]
