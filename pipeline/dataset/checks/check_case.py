"""Reads one case wholly, measures it and names every fault that it finds, each with its cure.

What is looked for lies in `header_checks`, `voxel_checks` and, between cases, `cohort`; here is the order of reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import safe_join
from pipeline.dataset.checks.case_statistics import components, intensity, label_counts
from pipeline.dataset.checks.faults import Fault, Report
from pipeline.dataset.checks.header_checks import check_channels, check_header, check_label_grid
from pipeline.dataset.checks.voxel_checks import check_intensities, check_values
from pipeline.dataset.foreground_box import Lines, bounding_box, foreground_profiles
from pipeline.dataset.manifest import Manifest, ManifestCase
from pipeline.io.geometry import Grid
from pipeline.io.grid_difference import grid_difference
from pipeline.io.image_file_error import LARGER_THAN_MEMORY, ImageFileError
from pipeline.io.image_header import ImageHeader
from pipeline.io.read_image import image_voxels
from pipeline.io.read_label import label_voxels
from pipeline.io.resample_to_grid import resample_to_grid
from pipeline.io.scan_digests import content_digest, file_digest, voxel_digest

_MEMORY = "memory"
_LESS_MEMORY = "crop that scan, leave it out, or use a machine with more memory"


@dataclass(frozen=True)
class CheckTask:
    """What a worker needs to check one case. `manifest` is that of the data set without its cases."""

    case: ManifestCase
    manifest: Manifest
    root: Path
    grid_tolerance_mm: float = 0.1
    resample_channels: bool = False

    @property
    def id(self) -> str:
        return self.case.id


@dataclass(frozen=True)
class Finding:
    """What was measured of one case, and its faults. `measured` (see `cases.Case`) is None where a fault is fatal.

    content: file to a digest of its voxels alone in canonical orientation, by which copies under another name, with
    another header or with turned axes are found.
    """

    case: ManifestCase
    faults: tuple[Fault, ...]
    measured: dict[str, Any] | None
    content: dict[str, str]

    @property
    def fatal(self) -> bool:
        return any(fault.severity == "fatal" for fault in self.faults)

    @property
    def out_of_memory(self) -> bool:
        """Whether there was too little memory for the case."""
        return any(fault.code in {_MEMORY, LARGER_THAN_MEMORY} for fault in self.faults)


def check_case(task: CheckTask) -> Finding:
    """Reads image and label of one case, measures them and lists all faults; never raises for a bad file.

    What the system refuses besides (permissions, a failing disk, memory) is a fault of the case too.
    """
    check = _Check(task)
    try:
        return check.run()
    except MemoryError:
        return check.abort(_MEMORY, "there is not enough memory to read and measure it", _LESS_MEMORY)
    except OSError as error:  # without its file, whose name may be one of a DICOM series
        found = f"one of its files cannot be read ({error.strerror or type(error).__name__})"
        return check.abort("unreadable", found, "check the permissions and the disk")


def finding_for_killed_worker(task: CheckTask) -> Finding:
    """What stands for a case whose process the kernel killed while it was read."""
    found = "the process that read it was killed, most likely for want of memory"
    return _Check(task).abort(_MEMORY, found, _LESS_MEMORY)


class _Check:
    """One case's check. Voxels of one file at a time are in memory, and the labels' foreground."""

    def __init__(self, task: CheckTask) -> None:
        self.task, self.case, self.report = task, task.case, Report(task.case.id)
        self.digests: dict[str, str] = {}
        self.content: dict[str, str] = {}
        self.counts: dict[int, int] = {}
        self.label_grid: Grid | None = None
        self.nonzero: list[Lines] = []

    def run(self) -> Finding:
        """All checks of the case: headers first, then voxels."""
        headers = [check_header(self.report, self.task.root, file) for file in self.case.images]
        grid = next((header.grid for header in headers if header is not None), None)
        names = [channel.name for channel in self.task.manifest.channels]
        check_channels(self.report, headers, self.case.images, names, self.task.resample_channels)
        label = self._label()
        foreground = self._foreground(label, grid)
        files = zip(headers, self.case.images, strict=True)
        rows = [row for header, file in files for row in self._image(header, file, grid, foreground)]
        # Where the first image cannot be read, its header, and with it the grid, cannot be trusted.
        if self.case.images[0] in self.digests and grid is not None and self.label_grid is not None:
            check_label_grid(self.report, self.case.label, grid, self.label_grid, self.task.grid_tolerance_mm)
        self._promised_digests()
        measured = None
        if grid is not None and not self.report.fatal:
            measured = self._measured(grid, label, rows)
        return Finding(self.case, tuple(self.report.faults), measured, self.content)

    def abort(self, code: str, found: str, cure: str) -> Finding:
        """What was found so far, and a fatal fault for why there is no more."""
        self.report.add("fatal", None, code, found, cure)
        return Finding(self.case, tuple(self.report.faults), None, self.content)

    def _label(self) -> NDArray | None:
        file = self.case.label
        if file is None:
            if self.case.split == "training":
                found = "it is a training case without a label"
                self.report.add("fatal", None, "no-label", found, "give its label, or set its split to testing")
            return None
        header = check_header(self.report, self.task.root, file)
        if header is None:
            return None
        try:
            label = label_voxels(header)
        except ImageFileError as fault:
            self.report.refused(file, fault)
            return None
        self._digest(file, label, header.grid)
        self.label_grid, self.counts = header.grid, label_counts(label)
        check_values(self.report, self.counts, file, self.task.manifest)
        return label

    def _image(
        self, header: ImageHeader | None, file: str, grid: Grid | None, foreground: NDArray | None
    ) -> list[dict[str, float]]:
        """The intensity statistics of each of a file's channels."""
        if header is None or grid is None:
            return []
        try:
            array = image_voxels(header)
        except ImageFileError as fault:
            self.report.refused(file, fault)
            return []
        self._digest(file, array, header.grid)
        if self.task.resample_channels and grid_difference(grid, header.grid):
            array = resample_to_grid(array, header.grid, grid)
        rows, channels = [], self.task.manifest.channels
        for i, channel in enumerate(array):
            which = f" of volume {i}" if len(array) > 1 else ""
            if check_intensities(self.report, channel, file, which):
                fits = foreground is not None and foreground.shape == channel.shape
                rows.append(intensity(channel, foreground if fits else None))
                if len(self.nonzero) < len(channels):  # more than that is a fault of its own
                    self.nonzero.append(foreground_profiles(channel, channels[len(self.nonzero)].modality))
        return rows

    def _foreground(self, label: NDArray | None, grid: Grid | None) -> NDArray | None:
        if label is None or grid is None or label.shape != grid.shape:
            return None
        declared = [value for region in self.task.manifest.structures.values() for value in region]
        return np.isin(label, declared)

    def _digest(self, file: str, array: NDArray, grid: Grid) -> None:
        self.digests[file] = voxel_digest(array, grid)
        self.content[file] = content_digest(array, grid)

    def _promised_digests(self) -> None:
        """The manifest's digests: of voxels where it has them, else of the file."""
        cure = "use the original file, or make the manifest anew with `segpipe init`"
        for file, digest in self.digests.items():
            promised = self.case.voxel_digest.get(file)
            if promised is not None and promised != digest:
                found = "its voxels or its grid are not those that the manifest was made from"
                self.report.add("fatal", file, "changed", found, cure)
            elif promised is None and file in self.case.sha256 and self._sha256(file) != self.case.sha256[file]:
                found = "it is not the file that the manifest was made from (its sha256 differs)"
                self.report.add("fatal", file, "changed", found, cure)

    def _sha256(self, file: str) -> str:
        return file_digest(safe_join(self.task.root, file))

    def _measured(self, grid: Grid, label: NDArray | None, rows: list[dict[str, float]]) -> dict[str, Any]:
        manifest, files = self.task.manifest, [*self.case.images, *([self.case.label] if self.case.label else [])]
        measured = self.case.model_dump(include={"id", "images", "label", "split", "fold", "extra"})
        if label is not None:
            counts = {n: sum(self.counts.get(v, 0) for v in region) for n, region in manifest.structures.items()}
            measured |= {"label_voxels": counts, "label_components": components(label, manifest.structures)}
            if manifest.ignore_label is not None:
                measured["ignored_voxels"] = self.counts.get(manifest.ignore_label, 0)
        return measured | {
            "subject": self.case.subject or self.case.id,
            "shape": grid.shape,
            "nonzero_shape": tuple(along.stop - along.start for along in bounding_box(self.nonzero)),
            "spacing_mm": grid.spacing_mm,
            "orientation": grid.axcodes,
            "affine": tuple(map(tuple, grid.affine.tolist())),
            "sha256": {file: self._sha256(file) for file in files},
            "voxel_digest": {file: self.digests[file] for file in files},
            "intensity": tuple(rows),
        }
