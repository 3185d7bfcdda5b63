"""Images in another unit than the other cases have, where the modality has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.checks.faults import ALL_CASES, Fault
from pipeline.dataset.checks.outliers import FEWEST, Measured, outliers
from pipeline.dataset.manifest import Manifest

_SCALE_FACTOR = 10.0
_CT_SHIFT_HU, _CT_SPREAD_FACTOR = 250.0, 3.0
_ABSOLUTE_UNITS = {"CT", "PET"}
"""Modalities with a physical unit; the scale of an MR image has no meaning and differs between scanners."""


def intensity_outliers(measured: Sequence[Measured], manifest: Manifest) -> Iterator[Fault]:
    """Another unit than the other cases have: a shifted or stretched CT, a PET in Bq/ml among SUVs."""
    for i, channel in enumerate(manifest.channels):
        modality = channel.modality.upper()
        if modality not in _ABSOLUTE_UNITS or not measured:
            continue
        rows = [case["intensity"][i] for case in measured]
        file = lambda case, i=i: case["images"][min(i, len(case["images"]) - 1)]  # noqa: E731
        if modality == "CT":
            yield from _ct_units(measured, rows, file, channel.name)
        else:
            spread = [row["p995"] - row["p005"] for row in rows]
            for k, usual in outliers(spread, _SCALE_FACTOR):
                yield Fault(
                    measured[k]["id"],
                    file(measured[k]),
                    "warning",
                    "intensity-scale",
                    f"its values span {spread[k]:.3g}, those of other cases about {usual:.3g}",
                    "convert it to the unit of the others (for PET: SUV)",
                )


def _ct_units(
    measured: Sequence[Measured], rows: Sequence[Mapping[str, float]], file: Callable[[Measured], str], name: str
) -> Iterator[Fault]:
    if min(row["min"] for row in rows) >= 0:
        yield Fault(
            ALL_CASES,
            "",
            "warning",
            "not-hounsfield",
            f"channel {name} is declared CT, and no case has a value below 0 (air is -1000 HU)",
            "convert it to Hounsfield units, or declare what it is",
        )
    if len(rows) < FEWEST:
        return
    spread = np.array([row["std"] for row in rows])
    for case, shift, times in zip(measured, _shifts(rows), spread / np.median(spread), strict=True):
        if not 1 / _CT_SPREAD_FACTOR < times < _CT_SPREAD_FACTOR:
            yield Fault(
                case["id"],
                file(case),
                "warning",
                "intensity-scale",
                f"its values spread {times:.2g} times as widely as those of other cases",
                "it is hardly in Hounsfield units; export it again without rescaling",
            )
        elif shift is not None:
            yield Fault(
                case["id"],
                file(case),
                "warning",
                "intensity-shift",
                f"its {shift.of} have a median of {shift.found:.0f}, those of other cases {shift.usual:.0f}",
                "check its rescale intercept (Hounsfield units stored with 1024 added?)",
            )


@dataclass(frozen=True)
class _Shift:
    """A median, in HU, that lies off those of other cases. of: the voxels it is of."""

    of: str
    found: float
    usual: float


def _shifts(rows: Sequence[Mapping[str, float]]) -> Iterator[_Shift | None]:
    """For each image, where it is shifted against the others: labelled voxels are held to labelled ones.

    A scan without them is judged as a whole, and shifted only if its darkest voxels are too: a tighter field of view
    has less air in it, which moves the median alone.
    """
    of_labelled, of_all, of_air = (_off(rows, key) for key in ("foreground_p50", "p50", "p005"))
    for i, row in enumerate(rows):
        if "foreground_p50" in row:
            off, of, found = of_labelled[i], "labelled voxels", row["foreground_p50"]
        else:
            off, of, found = of_all[i] if of_all[i] * of_air[i] > 0 else 0.0, "voxels", row["p50"]
        yield _Shift(of, found, found - off) if off else None


def _off(rows: Sequence[Mapping[str, float]], key: str) -> NDArray[np.float64]:
    """How far each value lies from the median of all, in HU; 0 where that is usual, or there is none to compare."""
    values = np.array([row.get(key, np.nan) for row in rows], dtype=np.float64)
    if np.isfinite(values).sum() < FEWEST:
        return np.zeros(len(values))
    off = values - np.nanmedian(values)
    limit = max(_CT_SHIFT_HU, 6 * 1.4826 * float(np.nanmedian(np.abs(off))))
    return np.where(np.abs(off) > limit, off, 0.0)
