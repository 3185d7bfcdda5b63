"""The plan as a value: what every stage after planning agrees on. How it is decided: `pipeline.planning`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.base.files import read_json, write_json
from pipeline.base.strict_model import StrictModel


class ChannelPlan(StrictModel):
    """How one input channel is normalised.

    ct: clip to [lower, upper] (foreground percentiles of the data set), then subtract mean, divide by std.
    zscore: subtract the image's own mean, divide by its own std (over nonzero voxels where `nonzero`).
    none: as given.
    """

    name: str
    modality: str
    scheme: Literal["ct", "zscore", "none"]
    nonzero: bool = False
    lower: float | None = None
    upper: float | None = None
    mean: float | None = None
    std: float | None = None


class Plan(StrictModel):
    """What is computed, frozen: equal plans, seeds and data give equal models (on one machine and thread count)."""

    axcodes: str = "RAS"
    spacing_mm: tuple[float, float, float]
    """Voxel size of the planned grid along its x, y, z."""
    crop: Literal["none", "nonzero"] = "none"
    """nonzero: crop to the box of voxels that differ from the background value before resampling."""
    image_interpolation: Literal["linear", "cubic"] = "linear"
    label_interpolation: Literal["linear", "nearest"] = "linear"
    """linear: each structure on its own, the largest share wins. nearest: the value of the voxel it lies in."""
    channels: tuple[ChannelPlan, ...]
    resample_channels: bool = False
    """Channels on another grid than the first one are interpolated onto it, here and at prediction; else refused."""
    structures: dict[str, tuple[int, ...]]
    """Structure name to the label values it consists of, background left out, in output order."""
    ignore_value: int | None = None
    overlapping: bool = False
    """True: structures may overlap, so the network ends in one sigmoid per structure and has no background."""
    patch_size: tuple[int, int, int]
    batch_size: int = Field(ge=1)
    network: dict[str, Any]
    """The resolved network configuration (`pipeline.models.networks.build_network`)."""
    max_steps: int = Field(ge=1)
    precision: Literal["fp32", "bf16", "fp16"]
    device: str
    """The kind of device the plan was made for: cpu or cuda."""
    num_threads: int | None = None
    mirror_axes: tuple[int, ...] = ()
    """Axes that training may flip and inference may mirror: none that would swap a left with a right structure."""
    mirror_swaps: tuple[tuple[str, str], ...] = ()
    """Structures that change places where training flips the first axis (left–right), which it does only then."""
    class_weights: tuple[float, ...] | None = None
    """Inverse class frequencies with mean 1, one per output channel, for losses that ask for them."""
    predicted: dict[str, float] = Field(default={})
    """Predictions, for a person and for checks: seconds_per_step, train_memory_gib, store_gib, ..."""
    reasons: dict[str, str] = Field(default={})
    """Key to one sentence: why the value is what it is."""

    @property
    def swap_indices(self) -> tuple[tuple[int, int], ...]:
        """`mirror_swaps` as structure indices, which begin at 1."""
        index = {name: i + 1 for i, name in enumerate(self.structures)}
        return tuple((index[one], index[other]) for one, other in self.mirror_swaps)

    @property
    def out_channels(self) -> int:
        """Channels of the network's output: structures, plus background unless structures overlap."""
        return len(self.structures) + (0 if self.overlapping else 1)


def read_plan(folder: Path) -> Plan:
    """The plan in a plan folder or a package."""
    return Plan.from_record(read_json(folder / "plan.json"))


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes `plan.json`."""
    write_json(folder / "plan.json", plan.model_dump(mode="json"))
