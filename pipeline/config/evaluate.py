"""Section `evaluate`: how predictions are scored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline.base.strict_model import StrictModel

Millimetres = Annotated[float, Field(gt=0)]


class EvaluateConfig(StrictModel):
    """How predictions are scored. Definitions: docs/definitions.md."""

    nsd_tolerance_mm: Millimetres | dict[str, Millimetres] = 1.0
    """Tolerance of the surface Dice: one number, or one per structure (1 mm for those not named)."""
    empty_policy: Literal["segpipe", "reloaded", "nnunet", "monai"] = "segpipe"
    """What a metric is where a structure is absent from reference or prediction, by whose rule."""
    surface: Literal["surfel", "voxel"] = "surfel"
    """surfel: surfaces weighted by area, as in surface-distance. voxel: edge voxels counted, as in MONAI."""
    lesion_connectivity: Literal[6, 18, 26] = 26
    """Voxels of one lesion join over faces (6), edges (18) or corners (26)."""
    bootstrap_resamples: int = Field(default=2000, ge=100)
    """Resamples of subjects behind each 95 % interval."""
    groups: Literal["auto"] | tuple[str, ...] = "auto"
    """Manifest columns with a table for each of their values; auto: those of 2 to 10 values that subjects share."""

    @field_validator("nsd_tolerance_mm", mode="before")
    @classmethod
    def _millimetres(cls, given: Any) -> Any:
        """One message for what is neither a number nor numbers by name, instead of one for each."""
        numbers = given.values() if isinstance(given, dict) else [given]
        if not all(isinstance(n, int | float) and not isinstance(n, bool) and n > 0 for n in numbers):
            raise ValueError(
                f"must be millimetres above 0, such as 1.0, or one per structure, {{liver: 2}}; got {given!r}"
            )
        return given
