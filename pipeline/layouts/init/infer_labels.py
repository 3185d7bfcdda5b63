"""Structures inferred from the label values that occur, or declared ones held against them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.layouts.dataset_listing import DatasetListing
from pipeline.layouts.init.label_map_survey import FileSurvey
from pipeline.layouts.label_names import LabelNames

RARE_CASES, RARE_VOXELS = 0.05, 10
MOST_VALUES = 255


def infer_label_names(census: FileSurvey) -> tuple[LabelNames | None, list[str], list[Problem]]:
    """One structure `label_VALUE` per value that occurs, said aloud; rare and negative values are flagged.

    None where no label map has any value above 0. A DataError where there are so many that they cannot be labels.
    """
    cases = census.cases_of()
    negative = [
        Problem(
            f"label value {value}",
            f"is negative, so no structure; correct the label maps of {', '.join(cases.pop(value))}",
        )
        for value in [value for value in cases if value < 0]
    ]
    if len(cases) > MOST_VALUES:
        raise DataError(
            f"the label maps have {len(cases)} different values (from {min(cases)} to {max(cases)}), as images have; "
            "if they are label maps, name the structures with --labels name=value,..."
        )
    if not cases:
        return None, [], negative
    names = {f"label_{value}": (value,) for value in cases}
    listing = ", ".join(f"{name}={values[0]}" for name, values in names.items())
    notes = [
        f"labels are inferred from {len(census.values)} label maps: {listing}; name them with --labels name=value,..."
    ]
    return LabelNames(names), notes, [*negative, *_filled(census, None), *_rare(census, cases)]


def _filled(census: FileSurvey, ignored: int | None) -> list[Problem]:
    """Label maps without background: the value that most voxels have may stand for it there, not the ignored one."""
    cases_of: dict[int, list[str]] = defaultdict(list)
    for case in census.filled:
        if counts := {value: voxels for value, voxels in census.values[case].items() if value != ignored}:
            cases_of[max(counts, key=lambda value: counts[value])].append(case)
    problems = []
    for value, where in sorted(cases_of.items()):
        found = f"fills the label maps of {', '.join(where)}, where no voxel is 0 (background)"
        cure = f"if {value} stands for background there, set it to 0; no other value can be background"
        problems.append(Problem(f"label value {value}", f"{found}; {cure}"))
    return problems


def _rare(census: FileSurvey, cases: Mapping[int, Sequence[str]]) -> list[Problem]:
    """Values in fewer than 5 % of the label maps, in one of several, or of ten voxels or fewer in all."""
    flagged = []
    total = len(census.values)
    for value, where in cases.items():
        voxels = sum(census.values[case][value] for case in where)
        if voxels <= RARE_VOXELS or len(where) < RARE_CASES * total or len(where) == 1 < total - 1:
            found = f"is rare: {voxels} voxels in {len(where)} of {total} label maps ({', '.join(where)})"
            cure = "if it is a slip, correct those maps, else give it a name with --labels"
            flagged.append(Problem(f"label value {value}", f"{found}; {cure}"))
    return flagged


def compare_with_declared(
    census: FileSurvey, labelling: LabelNames, lookup: bool
) -> tuple[LabelNames, list[str], list[Problem]]:
    """Holds declared labels against what occurs: undeclared values become problems, absent structures notes.

    Of a `lookup` table only structures that occur are kept.
    """
    cases = census.cases_of()
    problems = [
        Problem(f"label value {value}", f"is not declared, but occurs in {', '.join(where)}")
        for value, where in cases.items()
        if value not in labelling.values
    ] + _filled(census, labelling.ignore_value)
    absent = [name for name, values in labelling.structures.items() if not set(values) & set(cases)]
    if lookup and cases:
        kept = {name: values for name, values in labelling.structures.items() if name not in absent}
        return LabelNames(kept, labelling.ignore_value), [], problems
    notes = [f"declared, but in no label map: {', '.join(absent)}"] if absent and census.values else []
    return labelling, notes, problems


def decide_labels(
    found: DatasetListing, declared: LabelNames | None, census: FileSurvey
) -> tuple[LabelNames | None, list[str], list[Problem]]:
    """What the user says, else what the descriptor says, else what the label maps show."""
    if declared is not None:
        return compare_with_declared(census, declared, lookup=False)
    unknown = []
    if found.labelling is not None:
        known, notes, problems = compare_with_declared(census, found.labelling, found.labelling_is_lookup)
        if known.structures or not census.values:
            return known, notes, problems
        unknown = [Problem("labels", "the table of names has no value that occurs; all are named label_VALUE instead")]
    labelling, notes, problems = infer_label_names(census)
    problems = [*unknown, *problems]
    if labelling is None and any(case.label for case in found.cases):
        none = Problem("labels", "no readable label map has a value above 0, so there is nothing to learn")
        raise DataError(problem_list(str(found.folder), [*census.broken.values(), *problems, none]))
    return labelling, notes, problems
