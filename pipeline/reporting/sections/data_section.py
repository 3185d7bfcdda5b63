"""The data: sizes, spacings, volumes of structures and faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pipeline.dataset.loaded_cases import Case
from pipeline.reporting.format_numbers import number
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.html_table import table
from pipeline.reporting.run_record import RunRecord


def data_section(run: RunRecord) -> Html:
    """Sizes, spacings, structures' volumes and the faults that were found."""
    cases = run.cases.cases
    rows = [
        ["cases", f"{len(run.cases.training())} training, {len(run.cases.testing())} testing"],
        ["channels", ", ".join(f"{channel.name} ({channel.modality})" for channel in run.cases.channels)],
        ["shape, R × A × S", _range_of([_along_ras(case, case.shape) for case in cases], 0)],
        ["spacing mm, R × A × S", _range_of([_along_ras(case, case.spacing_mm) for case in cases], 2)],
        ["orientation", ", ".join(f"{code} ({n})" for code, n in Counter(c.orientation for c in cases).most_common())],
        ["folds", {"manifest": "given by the manifest", "made": "made here"}.get(run.folds_source, run.folds_source)],
        ["licence", run.cases.licence or "not stated"],
    ]
    structures = [
        [name, ", ".join(map(str, values)), *_volumes(cases, name)] for name, values in run.cases.structures.items()
    ]
    faults = run.faults
    return join(
        [
            table(["", "found"], rows, "facts"),
            tag("h3", "Structures"),
            table(
                ["structure", "label value", "labelled cases", "smallest ml", "median ml", "largest ml"],
                structures,
                "figures",
            ),
            tag("h3", "Faults found"),
            faults_table(faults) if faults else tag("p", "None: every file was sound.", class_="good"),
        ]
    )


def _along_ras(case: Case, values: Sequence[float]) -> tuple[float, ...]:
    """Values along a case's stored axes, put into the order right-left, front-back, up-down."""
    return tuple(
        values[next(i for i, code in enumerate(case.orientation) if code in pair)] for pair in ("RL", "AP", "SI")
    )


def _range_of(triples: Sequence[Sequence[float]], digits: int) -> str:
    """Median and range along x, y, z."""
    if not triples:
        return "–"
    axes = list(zip(*triples, strict=True))
    middle = " × ".join(f"{median(axis):.{digits}f}" for axis in axes)
    if all(min(axis) == max(axis) for axis in axes):
        return f"{middle} in all cases"
    low, high = (" × ".join(f"{pick(axis):.{digits}f}" for axis in axes) for pick in (min, max))
    return f"median {middle}, from {low} to {high}"


def _volumes(cases: Sequence[Case], structure: str) -> list[object]:
    ml = []
    for case in cases:
        x, y, z = case.spacing_mm
        if voxels := case.label_voxels.get(structure):
            ml.append(voxels * x * y * z / 1000)
    return [len(ml), *(number(pick(ml), 2) if ml else "–" for pick in (min, median, max))]


def faults_table(faults: Sequence[Mapping[str, Any]]) -> Html:
    """Faults by severity, each with what was found and its cure."""
    severities = {"fatal": 0, "fixable": 1, "warning": 2}
    ordered = sorted(faults, key=lambda f: (severities.get(str(f.get("severity")), 3), str(f.get("case"))))
    rows = [
        [f.get("case"), _badge(str(f.get("severity", ""))), f.get("code"), f.get("file"), f.get("found"), f.get("cure")]
        for f in ordered
    ]
    return table(["case", "severity", "what", "file", "found", "cure"], rows, "words")


def _badge(severity: str) -> Html:
    known = severity if severity in {"fatal", "fixable", "warning"} else "other"
    return tag("span", severity, class_=f"badge {known}")
