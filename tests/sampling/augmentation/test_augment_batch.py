"""Augmentation against scipy's and MONAI's counterparts, and what must hold for all of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast, GaussianSmooth, RandGaussianNoise
from scipy import ndimage, stats

from pipeline.sampling.augmentation import intensity_transforms as intensity
from pipeline.sampling.augmentation.augment_batch import augment_batch
from pipeline.sampling.augmentation.augmentation_config import AffineConfig, AugmentConfig, ElasticConfig
from pipeline.sampling.augmentation.random_parameters import SpatialParams, draw_params
from pipeline.sampling.augmentation.rotation_matrix import rotation_matrix
from pipeline.sampling.augmentation.spatial_transforms import flip, margin, resample
from pipeline.sampling.cut_patches import PatchWithMargin

ALWAYS = AugmentConfig.model_validate(
    {name: {"prob": 1.0} for name in ("affine", "elastic", "noise", "blur", "brightness", "contrast", "gamma")}
    | {"low_resolution": {"prob": 1.0}}
)
ONLY_FLIPS = AugmentConfig.model_validate(
    {
        name: {"prob": 0.0}
        for name in ("affine", "elastic", "noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
    }
    | {"flip_prob": 1.0}
)
NO_FLIPS = (False, False, False)


def make_batch(batch: int = 3, shape: tuple = (10, 12, 8), channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(batch, channels, *shape)), (0, 0, 1.5, 1.5, 1.5))
    image = torch.from_numpy((smooth / smooth.std()).astype(np.float32))
    return image, (image[:, 0] > 0.5).to(torch.uint8) + (image[:, 0] > 1).to(torch.uint8)


def moved_by(
    image: torch.Tensor,
    label: torch.Tensor,
    drawn: SpatialParams,
    size: tuple,
    spacing_mm: tuple,
    linear_label: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`resample` around the centre of image and label."""
    x, y, z = ((n - length) // 2 for n, length in zip(label.shape, size, strict=True))
    return resample(PatchWithMargin(image, label, (x, y, z)), drawn, size, spacing_mm, linear_label)


def augment(
    image_BCXYZ: torch.Tensor,
    label_BXYZ: torch.Tensor,
    config: AugmentConfig,
    seed: int,
    step: int,
    mirror_axes: tuple,
    spacing_mm: tuple,
    swaps: list | tuple = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch without margins, varied as the step of a training would vary it."""
    (batch, channels), size = image_BCXYZ.shape[:2], tuple(image_BCXYZ.shape[2:])
    changes = [
        draw_params(config, seed, step * batch + b, channels, mirror_axes, spacing_mm, size, swaps)
        for b in range(batch)
    ]
    samples = [PatchWithMargin(image, label, (0, 0, 0)) for image, label in zip(image_BCXYZ, label_BXYZ, strict=True)]
    return augment_batch(samples, changes, size, spacing_mm, swaps)


def test_a_pure_function_of_seed_and_step() -> None:
    image, label = make_batch()

    def run(seed: int, step: int) -> torch.Tensor:
        torch.manual_seed(np.random.default_rng().integers(1000))
        return augment(image, label, ALWAYS, seed, step, (0, 1, 2), (1.0, 1.0, 2.0))[0]

    assert torch.equal(run(1, 5), run(1, 5))
    assert not torch.equal(run(1, 5), run(1, 6)) and not torch.equal(run(1, 5), run(2, 5))


def test_micro_batches_are_varied_as_the_whole_batch() -> None:
    image, label = make_batch(batch=4)
    whole = augment(image, label, ALWAYS, 0, 3, (0, 1), (1.0, 1.0, 1.0))
    halves = [augment(image[2 * i :][:2], label[2 * i :][:2], ALWAYS, 0, 6 + i, (0, 1), (1.0,) * 3) for i in (0, 1)]
    assert torch.equal(whole[0], torch.cat([half[0] for half in halves]))
    assert torch.equal(whole[1], torch.cat([half[1] for half in halves]))


def test_the_input_is_left_alone_and_off_means_off() -> None:
    image, label = make_batch()
    before = image.clone(), label.clone()
    augment(image, label, ALWAYS, 0, 0, (0, 1, 2), (1.0, 1.0, 1.0))
    assert torch.equal(image, before[0]) and torch.equal(label, before[1])
    off = augment(image, label, AugmentConfig(enabled=False), 0, 0, (0, 1, 2), (1.0, 1.0, 1.0))
    assert torch.equal(off[0], image) and torch.equal(off[1], label)


def test_one_option_does_not_change_what_another_draws() -> None:
    image, label = make_batch()
    with_noise = ALWAYS.model_copy(update={"noise": ALWAYS.noise.model_copy(update={"prob": 0.0})})
    first = augment(image, label, ALWAYS, 0, 0, (0,), (1.0, 1.0, 1.0))[1]
    assert torch.equal(first, augment(image, label, with_noise, 0, 0, (0,), (1.0, 1.0, 1.0))[1])


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 1.0, 2.5)])
def test_affine_equals_scipy(spacing_mm: tuple) -> None:
    image, label = make_batch(batch=1, channels=1, shape=(14, 12, 9))
    matrix_mm = rotation_matrix(np.deg2rad([10, -15, 25])) @ np.diag([1.1, 0.9, 1.2])
    moved, moved_label = moved_by(image[0], label[0], SpatialParams(matrix_mm, None, NO_FLIPS), (14, 12, 9), spacing_mm)
    spacing = np.diag(spacing_mm)
    matrix = np.linalg.inv(spacing) @ matrix_mm @ spacing
    centre = (np.array([14, 12, 9]) - 1) / 2
    offset = centre - matrix @ centre
    expected = ndimage.affine_transform(image[0, 0].double().numpy(), matrix, offset, order=1, mode="nearest")
    np.testing.assert_allclose(moved[0].numpy(), expected, atol=1e-4)
    expected_label = ndimage.affine_transform(label[0].numpy(), matrix, offset, order=0, mode="nearest")
    assert (moved_label.numpy() == expected_label).mean() > 0.999  # ties at voxel borders round either way


def test_elastic_equals_scipys_map_coordinates() -> None:
    image, label = make_batch(batch=1, channels=1, shape=(14, 12, 9))
    points = np.random.default_rng(0).normal(0, 1.0, (3, 4, 3, 5)).astype(np.float32)
    spacing_mm = (1.0, 1.5, 2.0)
    moved, _ = moved_by(image[0], label[0], SpatialParams(None, points, NO_FLIPS), (14, 12, 9), spacing_mm)
    upward = [
        ndimage.zoom(p.astype(float), np.array([14, 12, 9]) / p.shape, order=3, mode="nearest", grid_mode=True)
        for p in points
    ]
    places = [np.arange(n).reshape([-1 if a == i else 1 for a in range(3)]) + upward[i] / spacing_mm[i]
              for i, n in enumerate((14, 12, 9))]  # fmt: skip
    expected = ndimage.map_coordinates(image[0, 0].double().numpy(), places, order=1, mode="nearest")
    np.testing.assert_allclose(moved[0].numpy(), expected, atol=1e-4)


def test_a_quarter_turn_moves_every_voxel_to_its_place() -> None:
    # A turn by 90 degrees about z takes x to y: the result at (x, y) is the input at (-y, x) seen from the centre.
    image = torch.arange(27.0).reshape(1, 1, 3, 3, 3)
    label = image[0].to(torch.uint8)
    turned = SpatialParams(rotation_matrix([0, 0, np.pi / 2]), None, NO_FLIPS)
    moved, moved_label = moved_by(image[0], label[0], turned, (3, 3, 3), (1.0, 1.0, 1.0))
    expected = torch.rot90(image[0, 0], k=-1, dims=(0, 1))
    assert torch.allclose(moved[0], expected, atol=1e-4)
    assert torch.equal(moved_label, expected.to(torch.uint8))


def test_image_and_label_stay_together() -> None:
    """Where the image is its own label, it still is after every spatial operation, but at the borders of structures."""
    _, label = make_batch(batch=6, shape=(20, 20, 20))
    label = (label > 0).to(torch.uint8)  # between 0 and 2, linear interpolation would pass through 1
    image = label[:, None].float()
    config = ALWAYS.model_copy(update={"elastic": ElasticConfig(prob=1.0)})
    silent = {name: config.__dict__[name].model_copy(update={"prob": 0.0}) for name in
              ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")}  # fmt: skip
    moved, moved_label = augment(image, label, config.model_copy(update=silent), 0, 0, (0, 1, 2), (1.0, 1.0, 1.0))
    sure = (moved[:, 0] - moved[:, 0].round()).abs() < 1e-4
    assert sure.float().mean() > 0.3
    assert torch.equal(moved[:, 0].round()[sure].to(torch.uint8), moved_label[sure])


def test_linear_labels_are_the_largest_linear_share() -> None:
    image, label = make_batch(batch=1, channels=1, shape=(12, 12, 12))
    spatial = SpatialParams(rotation_matrix([0.1, 0.2, 0.3]), None, NO_FLIPS)
    _, moved = moved_by(image[0], label[0], spatial, (12, 12, 12), (1.0, 1.0, 1.0), linear_label=True)
    onehot = torch.stack([(label[0] == k).float() for k in range(3)])
    shares, _ = moved_by(onehot, label[0], spatial, (12, 12, 12), (1.0, 1.0, 1.0))
    assert torch.equal(moved, shares.argmax(0).to(torch.uint8))


def test_thick_slices_are_not_mixed() -> None:
    image = torch.arange(6.0).expand(1, 1, 9, 9, 6).contiguous()  # each slice its own value
    config = ONLY_FLIPS.model_copy(update={"affine": AffineConfig(prob=1.0, scale=(1.0, 1.0)), "flip_prob": 0.0})
    moved, _ = augment(image, image[:, 0].to(torch.uint8), config, 0, 0, (), (1.0, 1.0, 5.0))
    assert torch.allclose(moved, image, atol=1e-4)
    mixed, _ = augment(image, image[:, 0].to(torch.uint8), config, 0, 0, (), (1.0, 1.0, 1.0))
    assert (mixed - image).abs().max() > 0.1


def test_the_margin_shows_the_surroundings_instead_of_repeated_edges() -> None:
    image, label = make_batch(batch=1, channels=1, shape=(24, 24, 24))
    turned = SpatialParams(rotation_matrix([0, 0, 0.35]), None, NO_FLIPS)
    whole, whole_label = moved_by(image[0], label[0], turned, (24, 24, 24), (1.0, 1.0, 1.0))
    inner, inner_label = moved_by(image[0], label[0], turned, (12, 12, 12), (1.0, 1.0, 1.0))
    assert torch.allclose(inner, whole[:, 6:18, 6:18, 6:18], atol=1e-4)
    assert torch.equal(inner_label, whole_label[6:18, 6:18, 6:18])
    cut = [slice(6 - around, 18 + around) for around in margin(turned, (12, 12, 12), (1.0, 1.0, 1.0))]
    enough, _ = moved_by(image[0][:, *cut], label[0][*cut], turned, (12, 12, 12), (1.0, 1.0, 1.0))
    assert torch.allclose(enough, inner, atol=1e-4)


def test_the_margin_is_as_wide_as_a_turn_needs_and_at_most_a_quarter() -> None:
    def around(angle: float, size: tuple, spacing_mm: tuple, scale: float = 1.0) -> tuple:
        return margin(
            SpatialParams(rotation_matrix([0, 0, np.deg2rad(angle)]) / scale, None, NO_FLIPS), size, spacing_mm
        )

    assert around(10, (40, 40, 40), (1.0, 1.0, 1.0)) == (4, 4, 0)  # 19.5 (cos 10° + sin 10° - 1) = 3.1
    assert around(10, (40, 20, 8), (1.0, 2.0, 5.0)) == (4, 2, 0)  # 3.003 mm, and 3.1 mm of 2 mm a voxel
    assert around(0, (40, 40, 8), (1.0, 1.0, 5.0), scale=0.8) == (5, 5, 1)  # 19.5 / 0.8 - 19.5 = 4.9
    assert around(45, (40, 40, 8), (1.0, 1.0, 5.0), scale=0.5) == (10, 10, 2)
    assert margin(
        SpatialParams(None, np.full((3, 2, 2, 2), -1.5, np.float32), NO_FLIPS), (40, 40, 8), (1.0, 1.0, 5.0)
    ) == (
        2,
        2,
        1,
    )


def test_flips_only_along_mirror_axes() -> None:
    image, label = make_batch()
    for axes in ((), (0,), (1, 2)):
        moved, moved_label = augment(image, label, ONLY_FLIPS, 0, 0, axes, (1.0, 1.0, 1.0))
        assert torch.equal(moved, image.flip([axis + 2 for axis in axes]))
        assert torch.equal(moved_label, label.flip([axis + 1 for axis in axes]))


def test_left_and_right_change_names_with_a_flip_and_only_with_one() -> None:
    label = torch.tensor([0, 1, 2, 3, 255], dtype=torch.uint8).reshape(1, 5, 1, 1)
    image = torch.zeros(1, 1, 5, 1, 1)
    moved = augment(image, label, ONLY_FLIPS, 0, 0, (), (1.0, 1.0, 1.0), swaps=[(1, 3)])[1]
    assert moved.ravel().tolist() == [255, 1, 2, 3, 0]
    still = augment(image, label, ONLY_FLIPS, 0, 0, (1,), (1.0, 1.0, 1.0))[1]
    assert still.ravel().tolist() == label.ravel().tolist()
    bits = torch.tensor([0, 1, 2, 4, 5, 255], dtype=torch.uint8).reshape(6, 1, 1)
    swapped = flip(torch.zeros(1, 6, 1, 1), bits, [0], [(1, 2)], overlapping=True)[1]
    assert swapped.ravel().tolist() == [255, 6, 4, 1, 2, 0]


@pytest.mark.parametrize("sigma", [0.5, 0.9, 1.4])
def test_blur_equals_scipy_and_is_near_monai(sigma: float) -> None:
    image, _ = make_batch(batch=1)
    blurred = intensity.blur(image[0], sigma).numpy()
    for channel, result in zip(image[0].numpy(), blurred, strict=True):
        expected = ndimage.gaussian_filter(channel.astype(np.float64), sigma, mode="nearest", truncate=3.0)
        np.testing.assert_allclose(result, expected, atol=1e-5)
    monai = GaussianSmooth(sigma, approx="sampled")(image[0]).numpy()
    if sigma < 0.8:
        return  # MONAI's sampled kernel does not sum to 1 there
    inner = (slice(None), *(slice(4, -4) for _ in range(2)), slice(3, -3))
    assert np.abs(monai[inner] - blurred[inner]).max() < 0.02


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_equals_monai(inverted: bool) -> None:
    image, _ = make_batch(batch=1)
    expected = torch.stack(
        [AdjustContrast(gamma=1.4, invert_image=inverted, retain_stats=True)(c[None])[0] for c in image[0]]
    )
    assert torch.allclose(intensity.adjust_gamma(image[0], (1.4, 1.4), inverted), expected, atol=1e-4)


def test_low_resolution_equals_monai() -> None:
    from monai.transforms import RandSimulateLowResolution

    image, _ = make_batch(batch=1, shape=(16, 12, 10))
    monai = RandSimulateLowResolution(prob=1.0, zoom_range=(0.5, 0.5 + 1e-9))
    assert torch.allclose(intensity.simulate_low_resolution(image[0], 0.5), torch.as_tensor(monai(image[0])), atol=1e-5)


def test_noise_is_distributed_as_monais() -> None:
    """Two samples of 40 000 voxels of one normal distribution: the largest distance of their shares is under 1.4 %
    (Kolmogorov and Smirnov, one chance in a thousand), between ours and the normal one as between ours and MONAI's."""
    image = torch.zeros(1, 40, 40, 25)
    ours = intensity.add_noise(image, 0.3, seed=1).flatten().numpy()
    drawn = RandGaussianNoise(prob=1.0, std=0.3, sample_std=False)
    drawn.set_random_state(1)
    theirs = np.asarray(drawn(image)).ravel()
    assert stats.kstest(ours, stats.norm(0, 0.3).cdf).pvalue > 1e-3
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_noise_has_the_deviation_asked_for_and_its_own_seed() -> None:
    image = torch.zeros(1, 40, 40, 40)
    noisy = intensity.add_noise(image, 0.25, seed=3)
    assert abs(float(noisy.std()) - 0.25) < 0.005 and abs(float(noisy.mean())) < 0.005
    assert torch.equal(noisy, intensity.add_noise(image, 0.25, seed=3))
    assert not torch.equal(noisy, intensity.add_noise(image, 0.25, seed=4))


def test_brightness_and_contrast_by_hand() -> None:
    image = torch.tensor([[0.0, 1.0, 2.0, 5.0]]).reshape(1, 4, 1, 1)
    assert intensity.scale_brightness(image, [1.5]).ravel().tolist() == [0.0, 1.5, 3.0, 7.5]
    assert intensity.adjust_contrast(image, [0.5]).ravel().tolist() == [1.0, 1.5, 2.0, 3.5]
    assert intensity.adjust_contrast(image, [2.0]).ravel().tolist() == [0.0, 0.0, 2.0, 5.0]  # -2, 0, 2, 8, clamped


def test_probabilities_are_met() -> None:
    image = torch.rand(1, 1, 4, 4, 4)
    config = AugmentConfig.model_validate(ONLY_FLIPS.model_dump() | {"flip_prob": 0.3})
    flipped = sum(
        not torch.equal(augment(image, image[:, 0], config, 0, step, (0,), (1.0, 1.0, 1.0))[0], image)
        for step in range(600)
    )
    assert abs(flipped / 600 - 0.3) < 0.06


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="must rise"):
        AugmentConfig.model_validate({"gamma": {"gamma": [1.5, 0.7]}})
    with pytest.raises(ValueError, match="above 0"):
        AugmentConfig.model_validate({"affine": {"scale": [0.0, 1.2]}})
