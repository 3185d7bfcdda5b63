"""Faults that only show between cases: copies, leaks between splits, and cases unlike all others.

Outliers are judged by median and median absolute deviation of logarithms, so that neither one bad case nor a wide
natural spread (tumours) moves the limit; both a factor and a distance must be passed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.checks import Finding
from pipeline.data.faults import Fault
from pipeline.data.folds import given_folds
from pipeline.data.geometry import Grid, to_canonical
from pipeline.data.manifest import Manifest, ManifestCase

ALL_CASES = "all cases"
_FLAT = {"constant", "empty-label"}
_FEWEST = 5
"""Cases that are needed before one of them can be called unlike the others."""
_LABEL_FACTOR, _SCALE_FACTOR, _EXTENT_FACTOR = 5.0, 10.0, 5.0
_VOXEL_FACTOR = 4.0
"""Of the voxels of a doubtful field of view: scans are of a chest or of a whole body, with voxels like the others'."""
_BODY_AXES = ("left–right", "front–back", "head–feet")
_DEVIATIONS, _SMALLEST_DEVIATION = 4.0, 0.15
_CT_SHIFT_HU, _CT_SPREAD_FACTOR = 250.0, 3.0
_ABSOLUTE_UNITS = {"CT", "PET"}
"""Modalities with a physical unit; the scale of an MR image has no meaning and differs between scanners."""
_PRESENT_SHARE, _PRESENT_CASES = 0.9, 10

Measured = Mapping[str, Any]


def between_cases(findings: Sequence[Finding], manifest: Manifest) -> list[Fault]:
    """All faults between cases, in the order of the manifest."""
    measured = [finding.measured for finding in findings if finding.measured is not None]
    extents = list(_extent_outliers(measured))
    off_scale = {fault.case for fault in extents}  # then volumes in ml say nothing new
    faults = [
        *_copies(findings),
        *_leaks([finding.case for finding in findings]),
        *_fold_gaps([finding.case for finding in findings]),
        *_label_outliers([case for case in measured if case["id"] not in off_scale], manifest),
        *_missing_structures(measured, manifest),
        *_intensity_outliers(measured, manifest),
        *extents,
    ]
    place = {finding.case.id: i for i, finding in enumerate(findings)}
    return sorted(faults, key=lambda fault: place.get(fault.case, len(place)))


def _copies(findings: Sequence[Finding]) -> Iterator[Fault]:
    """Images with the same voxels in two cases, or twice in one; label maps of two images."""
    flat = {(fault.case, fault.file) for f in findings for fault in f.faults if fault.code in _FLAT}
    images = [(f.case, file, f.content[file]) for f in findings for file in f.case.images if file in f.content]
    copied = set()
    for first, first_file, case, file in _repeated(images, flat):
        copied.add((first.id, case.id))
        if first.id == case.id:
            yield Fault(
                case.id,
                file,
                "warning",
                "same-channel",
                f"it holds the same voxels as {first_file}",
                "give the image of this channel",
            )
        else:
            yield _duplicate(first, first_file, case, file)
    labels = [(f.case, f.case.label, f.content[f.case.label]) for f in findings if f.case.label in f.content]
    for first, first_file, case, file in _repeated(labels, flat):
        if (first.id, case.id) not in copied:
            yield Fault(
                case.id,
                file,
                "warning",
                "same-label",
                f"it is the same label map as {first_file} of {first.id}, whose image is another one",
                "find out to which image it belongs",
            )


def _duplicate(first: ManifestCase, first_file: str, case: ManifestCase, file: str) -> Fault:
    """Fatal where a model could be judged by what it learned from: one of the two trains, and they may be parted."""
    found = f"it holds the same voxels as {first_file} of {first.id}"
    same_subject, cure = _subject(first) == _subject(case), "take one of the two out of the manifest"
    if first.split != case.split:
        found += f" ({first.split}): a model would be tested on what it was trained on"
        return Fault(case.id, file, "fatal", "duplicate", found, cure)
    if case.split == "training" and not same_subject:
        found += " (another subject): in another fold, a model would be validated on what it was trained on"
        cure += ", or give both the subject that it is of"
        return Fault(case.id, file, "fatal", "duplicate", found, cure)
    found += ", the same subject: the scan counts twice" if same_subject else ": the scan counts twice"
    return Fault(case.id, file, "warning", "duplicate", found, cure)


def _repeated(
    files: Iterable[tuple[ManifestCase, str, str]], flat: set[tuple[str, str]]
) -> Iterator[tuple[ManifestCase, str, ManifestCase, str]]:
    """(first case, its file, case, file) for every file whose content was there before."""
    seen: dict[str, tuple[ManifestCase, str]] = {}
    for case, file, content in files:
        if (case.id, file) in flat:
            continue
        if content in seen:
            yield (*seen[content], case, file)
        else:
            seen[content] = case, file


def _subject(case: ManifestCase) -> str:
    return case.subject or case.id


def _leaks(cases: Sequence[ManifestCase]) -> Iterator[Fault]:
    """One subject in training and testing, or validated in two folds."""
    by_subject: dict[str, list[ManifestCase]] = defaultdict(list)
    for case in cases:
        by_subject[_subject(case)].append(case)
    for subject, own in by_subject.items():
        tested = [case.id for case in own if case.split == "testing"]
        trained = [case for case in own if case.split == "training"]
        for case in trained if tested else ():
            yield Fault(
                case.id,
                "",
                "fatal",
                "leak",
                f"its subject {subject} is in testing too ({', '.join(tested)}), so the test would not be one",
                "put all cases of a subject into one split",
            )
        folds = {case.fold for case in trained}
        if len(folds) > 1:
            shown = ", ".join(
                f"{case.id} in {'no fold' if case.fold is None else f'fold {case.fold}'}" for case in trained
            )
            for case in trained:
                yield Fault(
                    case.id,
                    "",
                    "fatal",
                    "leak",
                    f"its subject {subject} is validated in more than one fold ({shown})",
                    "give all cases of a subject the same fold",
                )


def _fold_gaps(cases: Sequence[ManifestCase]) -> Iterator[Fault]:
    """Folds of the manifest that are not counted from 0 on: `make_folds` closes the gaps."""
    given = given_folds(case for case in cases if case.split == "training")
    if given != list(range(len(given))):
        there, counted = (", ".join(map(str, numbers)) for numbers in (given, range(len(given))))
        yield Fault(
            ALL_CASES,
            "",
            "fixable",
            "fold-gap",
            f"the manifest's folds are {there}; they are taken as {counted}",
            "count folds from 0 without gaps in the manifest, or correct the fold that is wrong",
        )


def _label_outliers(measured: Sequence[Measured], manifest: Manifest) -> Iterator[Fault]:
    """A structure far larger or smaller than it usually is."""
    for name in manifest.structures:
        have = [case for case in measured if case.get("label_voxels", {}).get(name)]
        volumes_ml = [case["label_voxels"][name] * float(np.prod(case["spacing_mm"])) / 1000 for case in have]
        for i, usual in _outliers(volumes_ml, _LABEL_FACTOR):
            times = volumes_ml[i] / usual
            size = f"{times:.1f} times" if times > 1 else f"1/{1 / times:.0f} of"
            yield Fault(
                have[i]["id"],
                have[i]["label"],
                "warning",
                "label-outlier",
                f"{name} has {volumes_ml[i]:.3g} ml, {size} its usual {usual:.3g} ml",
                "look at the label map; correct it, or leave it if the structure is so",
            )


def _missing_structures(measured: Sequence[Measured], manifest: Manifest) -> Iterator[Fault]:
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


def _intensity_outliers(measured: Sequence[Measured], manifest: Manifest) -> Iterator[Fault]:
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
            for k, usual in _outliers(spread, _SCALE_FACTOR):
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
    if len(rows) < _FEWEST:
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
    if np.isfinite(values).sum() < _FEWEST:
        return np.zeros(len(values))
    off = values - np.nanmedian(values)
    limit = max(_CT_SHIFT_HU, 6 * 1.4826 * float(np.nanmedian(np.abs(off))))
    return np.where(np.abs(off) > limit, off, 0.0)


def _extent_outliers(measured: Sequence[Measured]) -> Iterator[Fault]:
    """A field of view unlike the others along an axis of the body, by its voxels: another unit, or a wrong spacing."""
    grids = [to_canonical(Grid(tuple(case["shape"]), np.array(case["affine"])))[1] for case in measured]
    voxels_mm = np.array([grid.spacing_mm for grid in grids]).reshape(-1, 3)
    extents_mm = voxels_mm * np.array([grid.shape for grid in grids]).reshape(-1, 3)
    off: dict[int, dict[str, float]] = defaultdict(dict)
    for axis, name in enumerate(_BODY_AXES):
        for i, usual_mm in _outliers(extents_mm[:, axis], _EXTENT_FACTOR):
            times = extents_mm[i, axis] / usual_mm
            voxel_times = voxels_mm[i, axis] / float(np.median(voxels_mm[:, axis]))
            if (voxel_times if times > 1 else 1 / voxel_times) >= _VOXEL_FACTOR:
                off[i][name] = times
    for i, times_along in sorted(off.items()):
        extent, voxel = ("×".join(f"{x:.4g}" for x in lengths[i]) for lengths in (extents_mm, voxels_mm))
        times_each = ", ".join(f"{times:.2g}" for times in times_along.values())
        yield Fault(
            measured[i]["id"],
            measured[i]["images"][0],
            "warning",
            "extent",
            f"its field of view of {extent} mm (in voxels of {voxel} mm) is {times_each} times that of other cases, "
            f"{', '.join(times_along)}",
            "check its voxel size, and that it is in mm",
        )


def _outliers(values: Sequence[float] | NDArray, factor: float) -> Iterator[tuple[int, float]]:
    """Index of each positive value that lies off the others by `factor` and many deviations, and the usual value."""
    logs = np.log(np.maximum(np.asarray(values, dtype=np.float64), 1e-12))
    if len(logs) < _FEWEST:
        return
    centre = float(np.median(logs))
    deviation = max(1.4826 * float(np.median(np.abs(logs - centre))), _SMALLEST_DEVIATION)
    for i in np.flatnonzero(np.abs(logs - centre) > max(np.log(factor), _DEVIATIONS * deviation)):
        yield int(i), float(np.exp(centre))
