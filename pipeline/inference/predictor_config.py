"""How a trained network is applied to whole images, as settings. Without torch: configurations are read early."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.base.strict_model import StrictModel

_Size = Annotated[int, Field(ge=4)]


class PostprocessConfig(StrictModel):
    """What is done to finished label maps, structure by structure, in this order; nothing by default."""

    fill_holes: tuple[str, ...] = ()
    """Structures whose enclosed background becomes theirs."""
    largest_component: tuple[str, ...] = ()
    """Structures of which only the largest connected component (26 neighbours) is kept."""
    min_volume_ml: dict[str, float] = Field(default={})
    """Structure to the volume under which one of its components is removed."""


class PredictorConfig(StrictModel):
    """Sliding window, precision and outputs."""

    roi_size: tuple[_Size, _Size, _Size] | None = None
    """Voxels of a window; null: the plan's patch. Larger ones are fewer, but show more at once than was trained on."""
    overlap: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Share of a window that it has in common with the next one along an axis."""
    mode: Literal["gaussian", "constant"] = "gaussian"
    """How a window's voxels are weighted: less towards its border, or all alike."""
    sigma_scale: float = Field(default=0.125, gt=0.0)
    """Standard deviation of the Gaussian weight as a share of the window."""
    starts: Literal["fixed", "even"] = "fixed"
    """fixed: constant steps, the last window pulled back (MONAI). even: spread evenly (nnU-Net)."""
    sw_batch_size: int = Field(default=1, ge=1)
    """Windows per call of the network."""
    mirror: bool = False
    """Average over mirrored windows too, along the axes that training mirrored (plan.mirror_axes): slower, often
    better."""
    precision: Literal["plan", "fp32", "bf16", "fp16"] = "plan"
    """Arithmetic of the network; plan: as it was trained."""
    backend: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What runs a package's networks; auto: of what is installed and exported, the fastest for the work there is.
    Networks that are not packaged yet are run by torch."""
    accumulate: Literal["auto", "fp32", "half"] = "auto"
    """How overlapping logits are kept; auto: fp32 where it fits into memory, else half."""
    memory_gib: float | None = Field(default=None, gt=0.0)
    """Most memory to use; null: 90 % of what is free. A case that needs more is refused before it starts."""
    uncertainty: bool = False
    """Write a map of entropy (and, for an ensemble, of disagreement) beside each segmentation, and a score per case."""
    probabilities: bool = False
    """Write the probability of every structure beside each segmentation, as a 4D image."""
    postprocess: PostprocessConfig | Literal["none", "auto"] = "none"
    """What is done to finished label maps; auto: what raises the Dice of the validation cases, and nothing else."""

    def window(self, patch_size: tuple[int, int, int]) -> tuple[int, int, int]:
        """The voxels of a window for a network whose plan has `patch_size`."""
        return self.roi_size or patch_size
