"""Check of a whole data set: every fault of every case, and between cases, in parallel."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipeline.base.machine import Runtime
from pipeline.dataset.checks.check_case import CheckTask, check_case, finding_for_killed_worker
from pipeline.dataset.checks.cross_case_checks import check_across_cases, nothing_to_do
from pipeline.dataset.checks.faults import Fault
from pipeline.dataset.manifest import Manifest
from pipeline.parallel.map_cases import map_cases


@dataclass(frozen=True)
class CheckedDataset:
    """What is wrong with a data set, which cases have a fatal fault, and what was measured of the readable ones."""

    faults: tuple[Fault, ...]
    fatal: tuple[str, ...]
    measured: tuple[dict[str, Any], ...]


def find_faults(
    manifest: Manifest,
    root: Path,
    runtime: Runtime,
    *,
    grid_tolerance_mm: float = 0.1,
    resample_channels: bool = False,
    to_train: bool = False,
) -> tuple[Fault, ...]:
    """Return every fault of every case and between cases; the arguments are those of `check_dataset`."""
    return check_dataset(
        manifest,
        root,
        runtime,
        grid_tolerance_mm=grid_tolerance_mm,
        resample_channels=resample_channels,
        to_train=to_train,
    ).faults


def check_dataset(
    manifest: Manifest,
    root: Path,
    runtime: Runtime,
    *,
    grid_tolerance_mm: float = 0.1,
    resample_channels: bool = False,
    to_train: bool = False,
) -> CheckedDataset:
    """Check all cases in parallel, then what only shows between them; in the manifest's order.

    Args:
        manifest: The data set.
        root: The folder that the paths of its cases start from.
        runtime: How work per case is spread.
        grid_tolerance_mm: How far corners of an image and its label may be apart.
        resample_channels: Channels on another grid than the first one are no fault.
        to_train: The data is meant for training: without a training case it has a fault.
    """
    common = manifest.model_copy(update={"cases": ()})
    tasks = [CheckTask(case, common, root, grid_tolerance_mm, resample_channels) for case in manifest.cases]
    findings = list(
        map_cases(check_case, tasks, runtime, "checking", finding_for_killed_worker, attrgetter("out_of_memory"))
    )
    faults = [
        *nothing_to_do(manifest, to_train),
        *(fault for finding in findings for fault in finding.faults),
        *check_across_cases(findings, manifest),
    ]
    fatal = {fault.case for fault in faults if fault.severity == "fatal"}
    return CheckedDataset(
        tuple(faults),
        tuple(case.id for case in manifest.cases if case.id in fatal),
        tuple(finding.measured for finding in findings if finding.measured is not None),
    )
