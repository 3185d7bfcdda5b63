"""`cases.json`: what `load` found out about every sound case, and where its files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pipeline.base.errors import DataError
from pipeline.base.files import read_json, safe_join
from pipeline.base.strict_model import StrictModel


class Channel(StrictModel):
    """One input channel. modality: CT is normalised over the data set (Hounsfield units), others image by image."""

    name: str
    modality: str = "MR"


class Case(StrictModel):
    """One case. Paths are relative to the data root, so that a moved data set keeps its digests."""

    id: str
    subject: str
    images: tuple[str, ...]
    """One path per channel, or a single path of a 4D image."""
    label: str | None
    split: Literal["training", "testing"]
    fold: int | None = None
    """The fold in which this case is validated; None: `sample` assigns one."""
    shape: tuple[int, int, int]
    nonzero_shape: tuple[int, int, int] | None = None
    """Shape of the box of what is not background, which `crop: nonzero` keeps; None: not measured."""
    spacing_mm: tuple[float, float, float]
    orientation: str
    affine: tuple[tuple[float, ...], ...]
    sha256: dict[str, str]
    """Relative path to the sha256 of the file."""
    voxel_digest: dict[str, str] = {}
    """Relative path to the digest of grid and voxels (`data_manifests/README.md` says of what)."""
    label_voxels: dict[str, int] = {}
    """Structure to its number of voxels in the reference."""
    ignored_voxels: int = 0
    """Voxels of the reference that hold the ignore value."""
    label_components: dict[str, int] = {}
    """Structure to its number of separate pieces."""
    intensity: tuple[dict[str, float], ...] = ()
    """Per channel: min, max, mean, std, p005, p50, p995 over the image, foreground_* over labelled voxels."""
    extra: dict[str, Any] = {}
    """Further manifest columns, for instance site or scanner."""


class Cases(StrictModel):
    """All sound cases of a data set with what is common to them."""

    dataset: str
    channels: tuple[Channel, ...]
    structures: dict[str, tuple[int, ...]]
    """Structure name to label values (one value unless a region), background left out, in output order."""
    ignore_value: int | None = None
    overlapping: bool = False
    resample_channels: bool = False
    """Whether `formats.read_image` has to bring a case's channels onto the grid of the first one."""
    grid_tolerance_mm: float = 0.1
    """How far corners of an image and its label may be apart (load.grid_tolerance_mm)."""
    licence: str = ""
    cases: tuple[Case, ...]

    def training(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.split == "training")

    def testing(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.split == "testing")


def read_cases(load_folder: Path) -> Cases:
    """The cases that a finished `load` stage recorded."""
    return Cases.from_record(read_json(load_folder / "cases.json"))


def recorded_data_root(load_folder: Path) -> Path:
    """The folder that case paths are relative to (`location.json`, which no digest depends on)."""
    return Path(read_json(load_folder / "location.json")["root"])


def require_recorded_root(load_folder: Path) -> Path:
    """The recorded folder of the scans, which must be there: a DataError if it is gone."""
    root = recorded_data_root(load_folder)
    if not root.is_dir():
        raise DataError(
            f"{root}: the scans lay in this folder when they were loaded, and it is gone; where they have moved, "
            "`segpipe load CONFIG --set data.root=DIR` records it, and what was made from equal scans stays"
        )
    return root


def manifest_image_paths(case: Case, root: Path) -> list[Path]:
    """Absolute paths of a case's image files."""
    return [safe_join(root, path) for path in case.images]
