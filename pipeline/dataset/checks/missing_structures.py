"""Structures that a case lacks though nearly all others have them, or that no case has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.dataset.checks.faults import ALL_CASES, Fault
from pipeline.dataset.checks.outliers import Measured
from pipeline.dataset.manifest import Manifest

_PRESENT_SHARE, _PRESENT_CASES = 0.9, 10


def missing_structures(measured: Sequence[Measured], manifest: Manifest) -> Iterator[Fault]:
    """A structure that nearly all other cases have, and one that no case has."""
    labelled = [case for case in measured if case.get("label_voxels")]
    for name in manifest.structures:
        without = [case for case in labelled if not case["label_voxels"][name]]
        if labelled and len(without) == len(labelled):
            yield Fault(
                ALL_CASES,
                "",
                "warning",
                "absent-structure",
                f"{name} is declared and occurs in no label map",
                "correct its value in the manifest's labels, or remove it",
            )
        elif len(labelled) > _PRESENT_CASES and len(labelled) - len(without) >= _PRESENT_SHARE * len(labelled):
            for case in without:
                share = f"{len(labelled) - len(without)} of {len(labelled)}"
                yield Fault(
                    case["id"],
                    case["label"],
                    "warning",
                    "missing-structure",
                    f"{name} is not labelled; it is in {share} cases",
                    "check that it is not in the image",
                )
