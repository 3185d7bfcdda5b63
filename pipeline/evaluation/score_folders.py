"""`segpipe score`: two folders of label maps, and the options that name structures and tolerances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError, DataError, Problem, problem_list
from pipeline.base.machine import Runtime
from pipeline.evaluation.evaluate_pairs import Evaluation, Pair, evaluate_pairs
from pipeline.evaluation.metrics.score_case import MetricConfig
from pipeline.io.image_file_names import IMAGE_ENDINGS, stem


def score(
    pred_dir: Path,
    ref_dir: Path,
    labels: str,
    output_dir: Path,
    metrics: MetricConfig | None = None,
    runtime: Runtime | None = None,
    ignore_value: int | None = None,
) -> dict[str, Any]:
    """`segpipe score`: scores each prediction in a folder against the reference with the same case id.

    labels: `name=value,...`, a region as `name=1+2`. References without a prediction are listed as not scored, and so
    are pairs that cannot be.
    Raises a ConfigError for labels or folders that cannot be used, a DataError for a prediction without a reference.
    """
    structures = parse_labels(labels)
    if of := [name for name, values in structures.items() if ignore_value in values]:
        raise ConfigError(
            f"--ignore {ignore_value} is a value of {', '.join(of)}; it can be scored or left out, not both"
        )
    evaluation = Evaluation(structures, metrics or MetricConfig(), ignore_value=ignore_value)
    preds, refs = _label_files(pred_dir), _label_files(ref_dir)
    if orphans := [Problem(case, f"{preds[case]} has no reference in {ref_dir}") for case in preds if case not in refs]:
        raise DataError(problem_list(f"{pred_dir}", orphans))
    missing = {case: "no prediction" for case in refs if case not in preds}
    pairs = [Pair(case, preds[case], refs[case], subject=case) for case in sorted(preds)]
    return evaluate_pairs(pairs, evaluation, output_dir, runtime or Runtime(), missing, go_on=True)


def parse_labels(text: str) -> dict[str, tuple[int, ...]]:
    """`liver=1,tumour=2,organ=1+2` as names with label values; a ConfigError says what is wrong."""
    structures: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, sign, values = (piece.strip() for piece in part.partition("="))
        numbers = [number.strip() for number in values.split("+")]
        if not name or not sign or not all(number.isdecimal() for number in numbers):
            raise ConfigError(f"--labels: {part!r} must be name=value, for instance --labels liver=1,tumour=2")
        if name in structures:
            raise ConfigError(f"--labels: {name!r} stands twice")
        if 0 in (found := tuple(int(number) for number in numbers)):
            raise ConfigError(f"--labels: {part!r}: 0 is the background, which is not scored")
        if len(set(found)) < len(found):
            raise ConfigError(f"--labels: {part!r} names a value twice")
        if twin := next((other for other, values in structures.items() if set(values) == set(found)), None):
            raise ConfigError(
                f"--labels: {twin!r} and {name!r} are both {values}; give each structure a value of its own"
            )
        structures[name] = found
    return structures


def _label_files(folder: Path) -> dict[str, Path]:
    """The label maps of a folder by case id."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or not path.name.lower().endswith(tuple(IMAGE_ENDINGS)):
            continue
        if (case := stem(path)) in found:
            raise DataError(f"{found[case]} and {path} are both label maps of case {case!r}; keep one")
        found[case] = path
    if not found:
        raise DataError(f"{folder}: no label maps here; their names end in {', '.join(IMAGE_ENDINGS)}")
    return found
