"""Faults that only voxels show: numbers that are none, nothing to see, label values that nobody declared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.checks.faults import Report
from pipeline.dataset.manifest import Manifest


def check_intensities(report: Report, channel_XYZ: NDArray, file: str, which: str = "") -> bool:
    """Whether a channel can be used: finite, and not one value throughout. which: the volume's place, in words."""
    if bad := non_finite(channel_XYZ):
        report.add(
            "fatal",
            file,
            "nan",
            f"{bad:,} voxels{which} ({bad / channel_XYZ.size:.2g} of all) are NaN or infinite",
            "replace them, for instance by the background value",
        )
        return False
    if channel_XYZ.min() == channel_XYZ.max():
        report.add(
            "fatal",
            file,
            "constant",
            f"every voxel{which} is {channel_XYZ.min():g}: there is nothing to see",
            "export the image again",
        )
        return False
    return True


def check_values(report: Report, counts: Mapping[int, int], file: str, manifest: Manifest) -> None:
    """Every label value is declared, and at least one structure is there. counts: value to voxels."""
    declared = {0, *(value for region in manifest.structures.values() for value in region)}
    ignored = manifest.ignore_label
    known = ", ".join(map(str, sorted(declared))) + (f" and {ignored} (ignored)" if ignored is not None else "")
    for value, count in counts.items():
        if value not in declared and value != ignored:
            report.add(
                "fatal",
                file,
                "undeclared-label",
                f"label value {value} ({count:,} voxels) is not declared",
                f"declare it in the manifest's labels, or correct the label map; declared: {known}",
            )
    counted = {value: count for value, count in counts.items() if value != ignored}
    if counted and 0 not in counted:
        most = max(counted, key=lambda value: counted[value])
        report.add(
            "warning",
            file,
            "no-background",
            f"no voxel has the value 0, which is background; most have {most}",
            f"if {most} stands for background there, set it to 0 in the label maps; else every voxel is labelled",
        )
    if not set(counts) - {0, ignored}:
        report.add("warning", file, "empty-label", "no structure is labelled in it", "check that this is meant")


def non_finite(channel_XYZ: NDArray) -> int:
    """How many voxels are NaN or infinite."""
    if np.isfinite(channel_XYZ.min()) and np.isfinite(channel_XYZ.max()):
        return 0  # a NaN would have been passed on
    return sum(int(plane.size - np.isfinite(plane).sum()) for plane in channel_XYZ)
