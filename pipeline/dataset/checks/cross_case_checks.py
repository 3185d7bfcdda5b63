"""Faults that only show between cases: copies, leaks between splits, and cases unlike all others."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.dataset.checks.check_case import Finding
from pipeline.dataset.checks.duplicates_and_leaks import find_duplicates, find_fold_gaps, find_split_leaks
from pipeline.dataset.checks.faults import Fault
from pipeline.dataset.checks.intensity_units import intensity_outliers
from pipeline.dataset.checks.missing_structures import missing_structures
from pipeline.dataset.checks.outliers import extent_outliers, label_outliers
from pipeline.dataset.manifest import Manifest


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
