"""What the data alone decide: voxel size, crop, normalisation, and which axes may be flipped. Pins go first."""

from __future__ import annotations

from pipeline.config.plan import PlanConfig
from pipeline.dataset.loaded_cases import Cases
from pipeline.planning.crop import decide_crop, pinned_crop_reason
from pipeline.planning.mirroring import decide_mirroring, pinned_mirroring_reason, sided_structures
from pipeline.planning.normalisation import plan_channels
from pipeline.planning.target_spacing import pinned_spacing_reason, target_spacing
from pipeline.planning.training_grids import GridPlan, canonical_grids


def decide_grid(config: PlanConfig, cases: Cases) -> GridPlan:
    """Decides from the training cases what `config` leaves open, and says what each pin costs."""
    training = cases.training()
    whole = canonical_grids(training)
    spacing_mm, spacing_reason = target_spacing(whole)
    if config.spacing_mm is not None:
        spacing_mm, spacing_reason = config.spacing_mm, pinned_spacing_reason(config.spacing_mm, spacing_mm)
    crop, crop_reason = decide_crop(training)
    if config.crop is not None:
        crop, crop_reason = (
            config.crop,
            pinned_crop_reason(config.crop, crop, whole, canonical_grids(training, "nonzero")),
        )
    channels, channels_reason = plan_channels(cases.channels, training, config.normalisation)
    mirror_axes, mirror_reason = decide_mirroring(list(cases.structures), config.left_right_pairs)
    if config.mirror_axes is not None:
        sided = sided_structures(list(cases.structures))
        mirror_axes, mirror_reason = config.mirror_axes, pinned_mirroring_reason(config.mirror_axes, mirror_axes, sided)
    return GridPlan(
        spacing_mm=spacing_mm,
        crop=crop,
        channels=channels,
        mirror_axes=mirror_axes,
        image_interpolation=config.image_interpolation or "linear",
        label_interpolation=config.label_interpolation or "linear",
        grids=tuple(canonical_grids(training, crop)),
        reasons={
            "spacing_mm": spacing_reason,
            "crop": crop_reason,
            "channels": channels_reason,
            "mirror_axes": mirror_reason,
            "image_interpolation": _IMAGE_REASON[config.image_interpolation],
            "label_interpolation": _LABEL_REASON[config.label_interpolation],
        },
    )


_IMAGE_REASON = {
    None: "the quickest that is smooth",
    "linear": "pinned; it is what is taken where it is open",
    "cubic": "pinned; open it would be linear: sharper edges and overshoot, for some more time in preparing a scan",
}
_LABEL_REASON = {
    None: "structure by structure, the largest share wins: smoother than the nearest voxel",
    "linear": "pinned; it is what is taken where it is open",
    "nearest": "pinned; open it would be linear: quicker to prepare, with steps along borders",
}
