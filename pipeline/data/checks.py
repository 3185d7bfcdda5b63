"""Reads one case wholly, measures it and names every fault that it finds, each with its cure."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.files import inside, sha256_of
from pipeline.data.formats import read_image, read_label
from pipeline.data.manifest import Manifest, ManifestCase
from pipeline.data.volume import Volume

_FOREGROUND_SAMPLES = 10_000


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a case. fatal: it cannot be trained on; fixable and warning: it can."""

    case: str
    file: str
    severity: Literal["fatal", "fixable", "warning"]
    code: str
    found: str
    cure: str


@dataclass(frozen=True)
class Task:
    """What a worker needs to check one case."""

    case: ManifestCase
    manifest: Manifest
    root: Path
    grid_tolerance_mm: float

    @property
    def id(self) -> str:
        return self.case.id


@dataclass(frozen=True)
class Finding:
    """What was measured of one case, and its faults. `measured` is None where a fault is fatal."""

    case: str
    faults: tuple[Fault, ...]
    measured: dict[str, Any] | None

    @property
    def fatal(self) -> bool:
        return any(fault.severity == "fatal" for fault in self.faults)


def check_case(task: Task) -> Finding:
    """Reads image and label of one case, measures them and lists all faults; never raises for a bad file."""
    return _Check(task).run()


def voxel_digest(volume: Volume) -> str:
    """sha256 over shape (int64), affine to 1e-4 mm (float64) and voxels in C order (images float32, labels int32).

    All little-endian; the same case re-compressed has the same digest. A 3D image counts as (X, Y, Z), one of several
    channels as (C, X, Y, Z).
    """
    array = volume.array[0] if volume.array.ndim == 4 and len(volume.array) == 1 else volume.array
    kind = "<i4" if np.issubdtype(array.dtype, np.integer) else "<f4"
    affine = np.round(volume.grid.affine, 4) + 0.0  # no negative zeros
    digest = hashlib.sha256(np.array(array.shape, dtype="<i8").tobytes())
    digest.update(affine.astype("<f8").tobytes())
    digest.update(np.ascontiguousarray(array.astype(kind)).data)
    return digest.hexdigest()


class _Check:
    def __init__(self, task: Task) -> None:
        self.task, self.case = task, task.case
        self.faults: list[Fault] = []
        self.digests: dict[str, str] = {}

    def run(self) -> Finding:
        image = self._image()
        label = self._label() if self.case.label is not None else None
        if self.case.label is None and self.case.split == "training":
            self._fault(
                "fatal",
                "",
                "no_label",
                "a training case without a label",
                "give its label, or set its split to testing",
            )
        measured = None
        if image is not None:
            self._voxels(image)
            if label is not None:
                self._grids(image, label)
                self._values(label)
            if not any(fault.severity == "fatal" for fault in self.faults):
                measured = self._measure(image, label)
        return Finding(self.case.id, tuple(self.faults), measured)

    def _fault(self, severity: Any, file: str, code: str, found: str, cure: str) -> None:
        self.faults.append(Fault(self.case.id, file, severity, code, found, cure))

    def _image(self) -> Volume | None:
        declared, paths = self.task.manifest.channels, self.case.images
        volumes = []
        for path in paths:
            try:
                volumes.append(read_image([inside(self.task.root, path)]))
                self.digests[path] = voxel_digest(volumes[-1])
            except DataError as error:
                self._unreadable(path, error)
        if len(volumes) < len(paths):
            return None
        first = volumes[0]
        for path, volume in zip(paths[1:], volumes[1:], strict=True):
            if not volume.grid.close_to(first.grid, self.task.grid_tolerance_mm):
                self._fault("fatal", path, "channel_grid", f"lies on another grid than {paths[0]}: {_difference(volume, first)}",
                            "resample it onto the first channel's grid")  # fmt: skip
        if self.faults:
            return None
        image = first.with_array(np.concatenate([volume.array for volume in volumes]))
        if len(image.array) != len(declared):
            names = ", ".join(channel.name for channel in declared)
            self._fault("fatal", paths[0], "channels", f"{len(image.array)} channel(s), the manifest declares {len(declared)} ({names})",
                        "list one file per channel, or one 4D file with all of them")  # fmt: skip
            return None
        return image

    def _label(self) -> Volume | None:
        assert self.case.label is not None
        try:
            label = read_label(inside(self.task.root, self.case.label))
        except DataError as error:
            self._unreadable(self.case.label, error)
            return None
        self.digests[self.case.label] = voxel_digest(label)
        return label

    def _unreadable(self, path: str, error: DataError) -> None:
        text = str(error).partition(": ")[2] or str(error)
        found, _, cure = text.rpartition("; ")
        self._fault("fatal", path, "unreadable", found or text, cure if found else "copy or export it again")

    def _voxels(self, image: Volume) -> None:
        for i, channel in enumerate(image.array):
            file = self.case.images[min(i, len(self.case.images) - 1)]
            bad = int(channel.size - np.isfinite(channel).sum())
            if bad:
                self._fault(
                    "fatal",
                    file,
                    "nan",
                    f"{bad} voxels are NaN or infinite",
                    "replace them, for instance by the background value",
                )
            elif channel.min() == channel.max():
                self._fault("fatal", file, "constant", f"every voxel is {channel.min():g}", "export the image again")

    def _grids(self, image: Volume, label: Volume) -> None:
        if not label.grid.close_to(image.grid, self.task.grid_tolerance_mm):
            self._fault("fatal", str(self.case.label), "label_grid", f"image and label lie on different grids: {_difference(label, image)}",
                        "resample the label onto the image's grid, nearest neighbour")  # fmt: skip

    def _values(self, label: Volume) -> None:
        declared = {v for region in self.task.manifest.structures.values() for v in region} | {
            0,
            self.task.manifest.ignore_label,
        }
        values, counts = np.unique(label.array, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value not in declared:
                known = ", ".join(str(v) for v in sorted(declared - {None}))  # type: ignore[type-var]
                self._fault("fatal", str(self.case.label), "undeclared_label", f"label value {value} ({count} voxels) is not declared",
                            f"declare it in the manifest's labels, or remove it; declared: {known}")  # fmt: skip
        if not set(values.tolist()) - {0, self.task.manifest.ignore_label}:
            self._fault(
                "warning", str(self.case.label), "empty_label", "no structure is labelled", "check that this is meant"
            )

    def _measure(self, image: Volume, label: Volume | None) -> dict[str, Any]:
        structures = self.task.manifest.structures
        label_voxels = {} if label is None else {n: int(np.isin(label.array, v).sum()) for n, v in structures.items()}
        foreground = (
            None if label is None else np.isin(label.array, [v for region in structures.values() for v in region])
        )
        files = [*self.case.images, *([self.case.label] if self.case.label else [])]
        return {
            "id": self.case.id,
            "subject": self.case.subject or self.case.id,
            "images": self.case.images,
            "label": self.case.label,
            "split": self.case.split,
            "fold": self.case.fold,
            "shape": image.grid.shape,
            "spacing_mm": image.grid.spacing_mm,
            "orientation": image.grid.axcodes,
            "affine": tuple(map(tuple, image.grid.affine.tolist())),
            "sha256": {file: sha256_of(inside(self.task.root, file)) for file in files},
            "voxel_digest": self.digests,
            "label_voxels": label_voxels,
            "intensity": tuple(_intensity(channel, foreground) for channel in image.array),
            "extra": self.case.extra,
        }


def _intensity(channel: NDArray, foreground: NDArray | None) -> dict[str, float]:
    low, middle, high = np.percentile(channel, [0.5, 50, 99.5])
    result = {"min": channel.min(), "max": channel.max(), "mean": channel.mean(dtype=np.float64), "std": channel.std(dtype=np.float64),
              "p005": low, "p50": middle, "p995": high}  # fmt: skip
    if foreground is not None and foreground.any():
        inside_voxels = channel[foreground]
        low, middle, high = np.percentile(inside_voxels, [0.5, 50, 99.5])
        result |= {"foreground_mean": inside_voxels.mean(dtype=np.float64), "foreground_std": inside_voxels.std(dtype=np.float64),
                   "foreground_p005": low, "foreground_p50": middle, "foreground_p995": high}  # fmt: skip
    return {key: float(value) for key, value in result.items()}


def _difference(a: Volume, b: Volume) -> str:
    if a.grid.shape != b.grid.shape:
        return f"shape {a.grid.shape} and {b.grid.shape}"
    return f"corners are up to {a.grid.distance_mm(b.grid):.3g} mm apart"


def faults_as_json(faults: list[Fault]) -> list[dict[str, str]]:
    """For `faults.json` and `segpipe check --json`."""
    return [asdict(fault) for fault in faults]
