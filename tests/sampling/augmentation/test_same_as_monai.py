"""Flips, brightness, contrast and rotation are what MONAI calls by these names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Flip, Rotate, ScaleIntensity, ScaleIntensityFixedMean

from pipeline.sampling.augmentation import intensity_transforms as intensity
from pipeline.sampling.augmentation.random_parameters import SpatialParams
from pipeline.sampling.augmentation.rotation_matrix import rotation_matrix
from pipeline.sampling.augmentation.spatial_transforms import flip, resample
from pipeline.sampling.cut_patches import PatchWithMargin


def image(shape: tuple[int, ...] = (2, 9, 8, 7)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("axes", [[0], [1, 2], [0, 1, 2]])
def test_flip_equals_monai(axes: list[int]) -> None:
    scan, label = image(), (image((9, 8, 7)) > 0).to(torch.uint8)
    flipped, flipped_label = flip(scan, label, axes, [], False)
    assert torch.equal(flipped, torch.as_tensor(Flip(axes)(scan)))
    assert torch.equal(flipped_label, torch.as_tensor(Flip(axes)(label[None]))[0])


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_brightness_and_contrast_equal_monai(factor: float) -> None:
    scan = image()
    brighter = intensity.scale_brightness(scan, [factor, factor])
    assert torch.allclose(brighter, torch.as_tensor(ScaleIntensity(None, None, factor=factor - 1)(scan)), atol=1e-6)
    monai = ScaleIntensityFixedMean(factor=factor - 1, preserve_range=True, channel_wise=True)
    assert torch.allclose(intensity.adjust_contrast(scan, [factor, factor]), torch.as_tensor(monai(scan)), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_turn_about_one_axis_equals_monai(axis: int) -> None:
    """About the centre, by the same angle and in the same sense; on cubes, since MONAI turns in voxels."""
    scan, label = image((1, 9, 9, 9)), (image((9, 9, 9)) > 0).to(torch.uint8)
    angles = [0.3 if other == axis else 0.0 for other in range(3)]
    spatial = SpatialParams(rotation_matrix(angles), None, (False, False, False))
    turned, turned_label = resample(PatchWithMargin(scan, label, (0, 0, 0)), spatial, (9, 9, 9), (1.0, 1.0, 1.0))
    monai = {"keep_size": True, "padding_mode": "border", "align_corners": False}
    linear, nearest = Rotate(angles, mode="bilinear", **monai), Rotate(angles, mode="nearest", **monai)
    assert torch.allclose(turned, torch.as_tensor(linear(scan)), atol=1e-4)
    assert torch.equal(turned_label.float(), torch.as_tensor(nearest(label[None].float()))[0])
