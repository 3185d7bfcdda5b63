"""What a report tells of: the finished stages of one run, read into one value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.files import read_json
from pipeline.base.portable_yaml import portable_yaml
from pipeline.base.stage import RECORD, TIMING
from pipeline.base.stage_outputs import output_digest
from pipeline.dataset.loaded_cases import Cases, read_cases, recorded_data_root
from pipeline.preprocessing.plan import Plan, read_plan
from pipeline.reporting.evaluation_results import Results, read_results
from pipeline.reporting.read_training_metrics import Fold, read_fold

LARGEST_PREVIEW = 700_000


@dataclass(frozen=True)
class StageRecord:
    """One finished stage: digests of what was asked and of what came out, and how it went."""

    name: str
    version: int
    request: str
    output: str
    outputs: Mapping[str, str | None]
    failed_cases: tuple[str, ...]
    timing: Mapping[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """Everything that the page shows, apart from voxels."""

    name: str
    seed: int
    cases: Cases
    fingerprint: Mapping[str, Any]
    faults: Sequence[Mapping[str, Any]]
    plan: Plan
    folds_source: str
    preview: bytes
    """PNG of patches as training drew them; empty where there is none, or one too large for a page."""
    train: Mapping[str, Any]
    folds: tuple[Fold, ...]
    inferred: Sequence[Mapping[str, Any]]
    postprocess: Mapping[str, Any]
    """What was done to label maps and why; empty where the run is from before that was recorded."""
    results: Results
    stages: tuple[StageRecord, ...]
    config: str
    """The resolved configuration as YAML, without this machine's paths."""


def read_run(name: str, seed: int, inputs: Mapping[str, Path], config: str) -> RunRecord:
    """Reads the folders of load, plan, sample, train, infer and evaluate. DataError where a file is missing.

    `config` is the resolved configuration. Absolute paths (which may hold a user's or a patient's name) are cut to
    their last part everywhere.
    """
    shorten = _Shortener((recorded_data_root(inputs["load"]), *inputs.values()))
    train = read_json(inputs["train"] / "train.json")
    return RunRecord(
        name=name,
        seed=seed,
        cases=read_cases(inputs["load"]),
        fingerprint=read_json(inputs["load"] / "fingerprint.json"),
        faults=shorten(read_json(inputs["load"] / "faults.json")),
        plan=read_plan(inputs["plan"]),
        folds_source=str(read_json(inputs["sample"] / "folds.json").get("source", "")),
        preview=_preview(inputs["sample"] / "preview.png"),
        train=train,
        folds=tuple(_fold(inputs["train"], train, fold) for fold in train["folds"]),
        inferred=shorten(read_json(inputs["infer"] / "cases.json")["cases"]),
        postprocess=_postprocess(inputs["infer"] / "postprocess.json"),
        results=read_results(inputs["evaluate"]),
        stages=tuple(_stage(folder) for folder in inputs.values() if (folder / RECORD).is_file()),
        config=portable_yaml(config),
    )


class _Shortener:
    """Takes folders of this machine out of messages: known ones wholly, others down to the file name."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.known = sorted({f"{form}/" for f in folders for form in (f, f.resolve())}, key=len, reverse=True)

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, str):
            return value
        for folder in self.known:
            value = value.replace(folder, "")
        return re.sub(r"(?<![\w.])/(?:[^/\s'\":;,]+/)+", "", value)


def _fold(train: Path, record: Mapping[str, Any], fold: int | str) -> Fold:
    best = record.get("validation", {}).get(str(fold), {}).get("best_step")
    return read_fold(train / f"fold_{fold}", str(fold), best)


def _postprocess(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}


def _preview(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST_PREVIEW else b""


def _stage(folder: Path) -> StageRecord:
    record = read_json(folder / RECORD)
    timing = read_json(folder / TIMING) if (folder / TIMING).is_file() else {}
    return StageRecord(
        name=record["request"]["stage"],
        version=record["request"]["version"],
        request=record["request_digest"],
        output=output_digest(folder),
        outputs={name: entry["digest"] for name, entry in record["outputs"].items()},
        failed_cases=tuple(record.get("failed_cases", ())),
        timing=timing,
    )


def set_of(run: RunRecord, entry: Mapping[str, object]) -> str:
    folds = entry.get("folds") or []
    split = next((case.split for case in run.cases.cases if case.id == entry["id"]), "")
    if split == "testing" or not isinstance(folds, list):
        return split
    return "fold " + ", ".join(str(fold) for fold in folds)
