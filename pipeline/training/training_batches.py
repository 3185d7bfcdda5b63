"""Training batches: patches drawn from the store and augmented on the device."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.sampling.augmentation.augment_batch import augment_batch
from pipeline.sampling.augmentation.random_parameters import draw_params
from pipeline.sampling.augmentation.spatial_transforms import margin
from pipeline.sampling.cut_patches import NO_MARGIN, cut_with_margin
from pipeline.sampling.patch_locations import draw_locations
from pipeline.training.check_train_against_plan import structure_weights
from pipeline.training.prefetch import Batch
from pipeline.training.select_folds import FoldSplit
from pipeline.training.train_context import TrainContext


def make_batch_fn(shop: TrainContext, fold: FoldSplit) -> Callable[[int], Batch]:
    """The batch of a step: drawn from the store, moved to the device and augmented there."""
    config, plan = shop.config, shop.plan
    weights = structure_weights(config.oversample_weights or {}, plan.structures)

    def draw(step: int) -> Batch:
        part = step * shop.world.size + shop.world.rank  # parts of one batch, as if it had been drawn whole
        places = draw_locations(
            shop.store, fold.train, plan.patch_size, shop.batch_size, shop.seed, part, config.oversample, weights
        )
        changes = [
            draw_params(
                config.augment,
                shop.seed,
                part * shop.batch_size + position,
                len(plan.channels),
                plan.mirror_axes,
                plan.spacing_mm,
                plan.patch_size,
                plan.swap_indices,
            )
            for position in range(shop.batch_size)
        ]
        samples = []
        for place, change in zip(places, changes, strict=True):
            around = margin(change.spatial, plan.patch_size, plan.spacing_mm) if change else NO_MARGIN
            samples.append(cut_with_margin(shop.store, place, plan.patch_size, around).to(shop.device))
        linear_label = config.augment.label_interpolation == "linear"
        return Batch(
            *augment_batch(
                samples,
                changes,
                plan.patch_size,
                plan.spacing_mm,
                plan.swap_indices,
                plan.overlapping,
                linear_label,
            )
        )

    return draw
