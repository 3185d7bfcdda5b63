"""Faults that only show between cases: copies, leaks between splits, and cases unlike all others."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.dataset.checks.check_case import Finding
from pipeline.dataset.checks.duplicates_and_leaks import find_duplicates, find_fold_gaps, find_split_leaks
from pipeline.dataset.checks.faults import ALL_CASES, Fault
from pipeline.dataset.checks.intensity_units import intensity_outliers
from pipeline.dataset.checks.missing_structures import missing_structures
from pipeline.dataset.checks.outliers import extent_outliers, label_outliers
from pipeline.dataset.manifest import Manifest

TO_TRAIN = "give cases a label map and the split training"


def check_across_cases(findings: Sequence[Finding], manifest: Manifest) -> list[Fault]:
    """All faults between cases, in the order of the manifest."""
    measured = [finding.measured for finding in findings if finding.measured is not None]
    extents = list(extent_outliers(measured))
    off_scale = {fault.case for fault in extents}  # then volumes in ml say nothing new
    faults = [
        *find_duplicates(findings),
        *find_split_leaks([finding.case for finding in findings]),
        *find_fold_gaps([finding.case for finding in findings]),
        *label_outliers([case for case in measured if case["id"] not in off_scale], manifest),
        *missing_structures(measured, manifest),
        *intensity_outliers(measured, manifest),
        *extents,
    ]
    place = {finding.case.id: i for i, finding in enumerate(findings)}
    return sorted(faults, key=lambda fault: place.get(fault.case, len(place)))


def nothing_to_do(manifest: Manifest, to_train: bool) -> list[Fault]:
    """The fault of a data set without a case, or without one to train on."""
    if not manifest.cases:
        cure = "make it anew with `segpipe init`, from the folder that holds the scans"
        return [Fault(ALL_CASES, "", "fatal", "no-case", "the manifest has no case", cure)]
    if not to_train or any(case.split == "training" for case in manifest.cases):
        return []
    found = f"none of the {len(manifest.cases)} cases is for training"
    return [Fault(ALL_CASES, "", "fatal", "no-training-case", found, TO_TRAIN)]
