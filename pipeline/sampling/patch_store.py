"""The patch store: conformed cases as plain .npy files, read patch by patch from disk or held in memory, a GPU's too.

`store.json` lists the cases; `<id>.image.npy` is (C, X, Y, Z) float32, `<id>.label.npy` (X, Y, Z) indices as in
`pipeline.dataset.label_encoding`, `<id>.locations.npz` voxels (N, 3) of each structure, drawn once and evenly.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.files import read_json, write_json
from pipeline.base.machine import available_memory_gib
from pipeline.io.geometry import Shape
from pipeline.sampling.store_size import case_bytes

if TYPE_CHECKING:
    import torch

StoreMode = Literal["ram", "disk", "auto"]
INDEX = "store.json"

# What the store may take of the memory that training leaves; the rest is for validation on whole cases.
_RAM_SHARE = 0.5
# What the store may take of a GPU's memory that training leaves; the rest is for validation on whole cases.
_GPU_SHARE = 1 / 3


@dataclass(frozen=True)
class StoredCase:
    """One line of the index."""

    id: str
    subject: str
    shape: Shape
    channels: int
    foreground: Mapping[int, int]
    """Structure index to its number of voxels on the planned grid."""


@dataclass
class PatchStore:
    """Read access to the cases of a store. Arrays are shared: never write to them.

    device: where their arrays are kept; in_ram counts for the CPU alone.
    """

    folder: Path
    cases: Mapping[str, StoredCase]
    mode: StoreMode
    gib: float
    in_ram: bool
    reason: str
    device: str = "cpu"
    _arrays: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    _locations: dict[str, dict[int, NDArray[np.int32]]] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.cases)

    def shape(self, case: str) -> Shape:
        """Voxels of a case along x, y, z."""
        return self.cases[case].shape

    @property
    def where(self) -> str:
        """Where patches are read from, for a person."""
        return "GPU memory" if self.device != "cpu" else "memory" if self.in_ram else "disk"

    def to_device(self, device: str, free_gib: float, reserved_gib: float) -> PatchStore:
        """This store, on `device` where that has room for it beside what training takes there (reserved_gib).

        All arrays are moved at once. `sample.store: ram` or `disk` leaves them where they are.
        """
        if self.mode != "auto":
            return self
        import torch

        fits = self.gib < _GPU_SHARE * (free_gib - reserved_gib)
        reason = (
            f"{self.gib:.2f} GiB are {'' if fits else 'not '}less than a third of the {free_gib:.1f} GiB free on "
            f"the GPU without the {reserved_gib:.1f} GiB for training"
        )
        if not fits:
            return replace(self, reason=f"{reason}; {self.reason}")
        near = replace(self, device=device, reason=reason, _arrays={})
        try:
            for case in self.ids:
                near.image(case), near.label(case)
        except torch.OutOfMemoryError:
            return replace(self, reason=f"the GPU's memory did not suffice; {self.reason}")
        return near

    def image(self, case: str) -> torch.Tensor:
        """The image (C, X, Y, Z): in memory, or a memory map of which only what is touched is read."""
        return self._array(f"{case}.image.npy")

    def label(self, case: str) -> torch.Tensor:
        """The label map (X, Y, Z) of indices."""
        return self._array(f"{case}.label.npy")

    def locations(self, case: str) -> dict[int, NDArray[np.int32]]:
        """Structure index (from 1) to voxels (N, 3) of it; structures that the case lacks are left out."""
        if case not in self._locations:
            with np.load(self.folder / f"{case}.locations.npz", allow_pickle=False) as archive:
                self._locations[case] = {int(name): archive[name] for name in archive.files}
        return self._locations[case]

    def _array(self, name: str) -> torch.Tensor:
        with self._lock:  # several threads draw, and one of them reads a file
            if name not in self._arrays:
                self._arrays[name] = self._read(self.folder / name)
            return self._arrays[name]

    def _read(self, path: Path) -> torch.Tensor:
        import torch  # here: preparing cases needs this module, and not torch

        mapped = not self.in_ram or self.device != "cpu"
        try:
            array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a whole array ({error}); run `segpipe sample` again") from None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes
            return torch.from_numpy(array).to(self.device)


def open_store(folder: Path, mode: StoreMode | None = None, reserved_gib: float = 0.0) -> PatchStore:
    """The store in `folder`. mode None: as it was asked for when the store was written.

    auto holds the store in memory where it takes less than half of what is free beside what training takes there
    (reserved_gib, of one process), else maps it from disk.
    """
    index = read_json(folder / INDEX)
    cases = {
        name: StoredCase(
            id=name,
            subject=entry["subject"],
            shape=tuple(entry["shape"]),
            channels=entry["channels"],
            foreground={int(structure): count for structure, count in entry["foreground"].items()},
        )
        for name, entry in index["cases"].items()
    }
    mode = mode or index["mode"]
    in_ram, reason = _choose(mode, index["gib"], reserved_gib)
    return PatchStore(folder, cases, mode, index["gib"], in_ram, reason)


def _choose(mode: StoreMode, store_gib: float, reserved_gib: float) -> tuple[bool, str]:
    if mode != "auto":
        return mode == "ram", f"as asked for (sample.store: {mode})"
    # torchrun, and folds that are trained side by side, start several processes that each hold a store.
    free_gib = available_memory_gib() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fits = store_gib < _RAM_SHARE * (free_gib - reserved_gib)
    beside = f" without the {reserved_gib:.1f} GiB for training" if reserved_gib else ""
    return fits, f"{store_gib:.2f} GiB {'fit' if fits else 'do not fit'} into half of {free_gib:.1f} GiB free{beside}"


def write_case(
    folder: Path,
    case: str,
    subject: str,
    image_CXYZ: NDArray[np.float32],
    label_XYZ: NDArray,
    locations: Mapping[int, NDArray[np.int32]],
    foreground: Mapping[int, int],
) -> dict[str, Any]:
    """Writes one case and returns its entry of the index."""
    np.save(folder / f"{case}.image.npy", image_CXYZ, allow_pickle=False)
    np.save(folder / f"{case}.label.npy", label_XYZ, allow_pickle=False)
    named: dict[str, Any] = {str(structure): found for structure, found in locations.items()}
    np.savez(folder / f"{case}.locations.npz", **named)
    return {
        "subject": subject,
        "shape": list(label_XYZ.shape),
        "channels": int(image_CXYZ.shape[0]),
        "foreground": {str(structure): int(count) for structure, count in foreground.items()},
    }


def write_index(folder: Path, entries: Mapping[str, dict[str, Any]], mode: StoreMode, label_type: np.dtype) -> None:
    """Writes `store.json`, last."""
    gib = sum(case_bytes(entry["shape"], entry["channels"], label_type) for entry in entries.values()) / 2**30
    index = {"cases": dict(entries), "dtype": "float32", "label_dtype": str(label_type), "mode": mode, "gib": gib}
    write_json(folder / INDEX, index)
