"""Reads one case wholly, measures it and names every fault that it finds, each with its cure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.files import inside
from pipeline.data.digests import content_digest, file_digest, voxel_digest
from pipeline.data.faults import Fault, Severity
from pipeline.data.formats import grid_difference, image_voxels, label_voxels, read_header
from pipeline.data.geometry import Grid
from pipeline.data.header import FileFault, Header
from pipeline.data.manifest import Manifest, ManifestCase
from pipeline.data.measure import components, intensity, label_counts, non_finite
from pipeline.data.nonzero import Lines, box_of, nonzero_lines
from pipeline.data.regrid import regrid

_SPACING_LIMITS_MM = 0.02, 50.0


@dataclass(frozen=True)
class Task:
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


def check_case(task: Task) -> Finding:
    """Reads image and label of one case, measures them and lists all faults; never raises for a bad file."""
    return _Check(task).run()


class _Check:
    """One case's check. Voxels of one file at a time are in memory, and the labels' foreground."""

    def __init__(self, task: Task) -> None:
        self.task, self.case = task, task.case
        self.faults: list[Fault] = []
        self.digests: dict[str, str] = {}
        self.content: dict[str, str] = {}
        self.counts: dict[int, int] = {}
        self.label_grid: Grid | None = None
        self.nonzero: list[Lines] = []

    def run(self) -> Finding:
        headers = [self._header(file) for file in self.case.images]
        grid = next((header.grid for header in headers if header is not None), None)
        self._channels(headers)
        label = self._label()
        foreground = self._foreground(label, grid)
        files = zip(headers, self.case.images, strict=True)
        rows = [row for header, file in files for row in self._image(header, file, grid, foreground)]
        if self.case.images[0] in self.digests:  # else its header, and with it the grid, cannot be trusted
            self._label_grid(grid)
        self._promised_digests()
        measured = None
        if grid is not None and not any(fault.severity == "fatal" for fault in self.faults):
            measured = self._measured(grid, label, rows)
        return Finding(self.case, tuple(self.faults), measured, self.content)

    def _fault(self, severity: Severity, file: str | None, code: str, found: str, cure: str) -> None:
        self.faults.append(Fault(self.case.id, file or "", severity, code, found, cure))

    def _header(self, file: str) -> Header | None:
        try:
            header = read_header(inside(self.task.root, file))
        except FileFault as fault:
            self.faults.append(Fault.of_file(self.case.id, file, fault))
            return None
        except DataError:
            found = f"its path {file!r} is absolute or leaves the data root"
            self._fault("fatal", file, "path", found, "give a path below data.root, without '..'")
            return None
        for note in header.notes:
            self._fault("fixable", file, note.code, note.found, note.cure)
        self._plausible(header, file)
        return header

    def _plausible(self, header: Header, file: str) -> None:
        spacing = header.grid.spacing_mm
        low, high = _SPACING_LIMITS_MM
        if min(spacing) < low or max(spacing) > high:
            shown = "×".join(f"{x:.4g}" for x in spacing)
            self._fault(
                "warning",
                file,
                "spacing",
                f"a voxel of {shown} mm is hardly one of a patient",
                "check the unit of its header (mm is meant)",
            )
        if min(header.grid.shape) == 1:
            self._fault("warning", file, "single-slice", "it has a single slice", "check that a 3D scan is meant")

    def _channels(self, headers: Sequence[Header | None]) -> None:
        """The number of channels, and their common grid."""
        names = [channel.name for channel in self.task.manifest.channels]
        known = [(header, file) for header, file in zip(headers, self.case.images, strict=True) if header is not None]
        if len(known) == len(headers):
            count = sum(header.channels for header, _ in known)
            if count < len(names):
                missing = ", ".join(names[count:])
                self._fault(
                    "fatal",
                    None,
                    "missing-channel",
                    f"{count} of {len(names)} channels are there; missing: {missing}",
                    "give one file per channel in the manifest's order, or one 4D file",
                )
            for header, file in known if count > len(names) else ():
                if header.channels > 1:
                    self._fault(
                        "fatal",
                        file,
                        "4d",
                        f"it is 4D with {header.channels} volumes; {len(names)} ({', '.join(names)}) are meant",
                        "write the volume that is meant as a 3D file, or declare all as channels",
                    )
            if count > len(names) and all(header.channels == 1 for header, _ in known):
                self._fault(
                    "fatal",
                    None,
                    "extra-channel",
                    f"{count} images are listed for {len(names)} channel(s) ({', '.join(names)})",
                    "list one file per channel, or declare the others",
                )
        for header, file in known[1:]:
            if difference := grid_difference(known[0][0].grid, header.grid):
                found = f"it lies on another grid than {known[0][1]}: {difference}"
                if self.task.resample_channels:
                    self._fault("fixable", file, "channel-grid", found, "it is resampled (load.resample_channels)")
                else:
                    self._fault(
                        "fatal",
                        file,
                        "channel-grid",
                        found,
                        "resample it onto that grid, or set load.resample_channels: true",
                    )

    def _image(
        self, header: Header | None, file: str, grid: Grid | None, foreground: NDArray | None
    ) -> list[dict[str, float]]:
        """The intensity statistics of each of a file's channels."""
        if header is None or grid is None:
            return []
        try:
            array = image_voxels(header)
        except FileFault as fault:
            self.faults.append(Fault.of_file(self.case.id, file, fault))
            return []
        self._digest(file, array, header.grid)
        if self.task.resample_channels and grid_difference(grid, header.grid):
            array = regrid(array, header.grid, grid)
        rows = []
        for i, channel in enumerate(array):
            which = f" of volume {i}" if len(array) > 1 else ""
            if bad := non_finite(channel):
                self._fault(
                    "fatal",
                    file,
                    "nan",
                    f"{bad:,} voxels{which} ({bad / channel.size:.2g} of all) are NaN or infinite",
                    "replace them, for instance by the background value",
                )
            elif channel.min() == channel.max():
                self._fault(
                    "fatal",
                    file,
                    "constant",
                    f"every voxel{which} is {channel.min():g}: there is nothing to see",
                    "export the image again",
                )
            else:
                fits = foreground is not None and foreground.shape == channel.shape
                rows.append(intensity(channel, foreground if fits else None))
                if len(self.nonzero) < len(self.task.manifest.channels):  # more than that is a fault of its own
                    self.nonzero.append(nonzero_lines(channel, self.task.manifest.channels[len(self.nonzero)].modality))
        return rows

    def _label(self) -> NDArray | None:
        file = self.case.label
        if file is None:
            if self.case.split == "training":
                self._fault(
                    "fatal",
                    None,
                    "no-label",
                    "it is a training case without a label",
                    "give its label, or set its split to testing",
                )
            return None
        header = self._header(file)
        if header is None:
            return None
        try:
            label = label_voxels(header)
        except FileFault as fault:
            self.faults.append(Fault.of_file(self.case.id, file, fault))
            return None
        self._digest(file, label, header.grid)
        self.label_grid = header.grid
        self._values(label, file)
        return label

    def _label_grid(self, grid: Grid | None) -> None:
        if grid is None or self.label_grid is None:
            return
        if difference := grid_difference(grid, self.label_grid, self.task.grid_tolerance_mm):
            self._fault(
                "fatal",
                self.case.label,
                "label-grid",
                f"image and label lie on different grids: the label has {difference}",
                "resample the label onto the image's grid (nearest neighbour), or find the image that it was drawn on",
            )

    def _values(self, label: NDArray, file: str) -> None:
        self.counts = label_counts(label)
        declared = {0, *(value for region in self.task.manifest.structures.values() for value in region)}
        ignored = self.task.manifest.ignore_label
        known = ", ".join(map(str, sorted(declared))) + (f" and {ignored} (ignored)" if ignored is not None else "")
        for value, count in self.counts.items():
            if value not in declared and value != ignored:
                self._fault(
                    "fatal",
                    file,
                    "undeclared-label",
                    f"label value {value} ({count:,} voxels) is not declared",
                    f"declare it in the manifest's labels, or correct the label map; declared: {known}",
                )
        if not set(self.counts) - {0, ignored}:
            self._fault("warning", file, "empty-label", "no structure is labelled in it", "check that this is meant")

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
        for file, digest in self.digests.items():
            promised = self.case.voxel_digest.get(file)
            if promised is not None and promised != digest:
                self._fault(
                    "fatal",
                    file,
                    "changed",
                    "its voxels or its grid are not those that the manifest was made from",
                    "use the original file, or make the manifest anew with `segpipe init`",
                )
            elif promised is None and file in self.case.sha256 and self._sha256(file) != self.case.sha256[file]:
                self._fault(
                    "fatal",
                    file,
                    "changed",
                    "it is not the file that the manifest was made from (its sha256 differs)",
                    "use the original file, or make the manifest anew with `segpipe init`",
                )

    def _sha256(self, file: str) -> str:
        return file_digest(inside(self.task.root, file))

    def _measured(self, grid: Grid, label: NDArray | None, rows: list[dict[str, float]]) -> dict[str, Any]:
        structures = self.task.manifest.structures
        files = [*self.case.images, *([self.case.label] if self.case.label else [])]
        measured = self.case.model_dump(include={"id", "images", "label", "split", "fold", "extra"})
        if label is not None:
            measured |= {
                "label_voxels": {n: sum(self.counts.get(v, 0) for v in region) for n, region in structures.items()},
                "label_components": components(label, structures),
            }
        return measured | {
            "subject": self.case.subject or self.case.id,
            "shape": grid.shape,
            "nonzero_shape": tuple(along.stop - along.start for along in box_of(self.nonzero)),
            "spacing_mm": grid.spacing_mm,
            "orientation": grid.axcodes,
            "affine": tuple(map(tuple, grid.affine.tolist())),
            "sha256": {file: self._sha256(file) for file in files},
            "voxel_digest": {file: self.digests[file] for file in files},
            "intensity": tuple(rows),
        }
