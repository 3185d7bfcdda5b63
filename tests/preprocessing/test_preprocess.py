"""Conforming: orientation, crop, normalisation and the planned grid, on cases that can be checked by hand."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.dataset.foreground_box import nonzero_box
from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.preprocessing.crop_to_nonzero import cropped
from pipeline.preprocessing.plan import ChannelPlan, Plan
from pipeline.preprocessing.preprocess import preprocess, preprocess_label

AS_GIVEN = ChannelPlan(name="a", modality="MR", scheme="none")
ORIENTATIONS = [
    "".join(code) for axes in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*axes)
]


def make_plan(**changes: object) -> Plan:
    values: dict = {
        "spacing_mm": (1.0, 1.5, 3.0),
        "channels": (AS_GIVEN,),
        "structures": {"a": (2,), "b": (5, 7)},
        "patch_size": (8, 8, 8),
        "batch_size": 2,
        "network": {"name": "unet"},
        "max_steps": 1,
        "precision": "fp32",
        "device": "cpu",
    }
    return Plan(**(values | changes))


def turned(array: np.ndarray, affine: np.ndarray, axcodes: str) -> Volume:
    """The same voxels stored along other axes."""
    image = nib.Nifti1Image(array, affine)
    transform = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes)
    )
    stored = image.as_reoriented(transform)
    voxels = np.asarray(stored.dataobj)
    return Volume(voxels, Grid(voxels.shape, stored.affine))


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_every_orientation_gives_the_same_arrays(axcodes: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 8, 7)).astype(np.float32)
    labels = rng.choice([0, 2, 5, 7], (9, 8, 7)).astype(np.int16)
    affine = np.diag([1.2, 1.0, 2.5, 1])
    image = turned(values, affine, axcodes)
    image = Volume(image.array[None], image.grid)
    label = turned(labels, affine, axcodes)
    expected = preprocess(Volume(values[None], Grid((9, 8, 7), affine)), make_plan())
    result = preprocess(image, make_plan())
    np.testing.assert_allclose(result.image, expected.image, atol=1e-6)
    np.testing.assert_allclose(result.grid.affine, expected.grid.affine, atol=1e-9)
    expected_label = preprocess_label(Volume(labels, Grid((9, 8, 7), affine)), make_plan(), expected)
    assert np.array_equal(preprocess_label(label, make_plan(), result), expected_label)


def test_on_its_own_grid_only_axes_and_values_change() -> None:
    values = np.random.default_rng(1).normal(size=(1, 5, 6, 7)).astype(np.float32)
    grid = Grid((5, 6, 7), np.diag([1.0, 1.5, 3.0, 1]))
    label = np.random.default_rng(2).choice([0, 2, 5, 7, 9], (5, 6, 7))
    result = preprocess(Volume(values, grid), make_plan())
    assert np.array_equal(result.image, values)
    indices = preprocess_label(Volume(label, grid), make_plan(ignore_value=9), result)
    assert np.array_equal(indices, np.select([label == 2, (label == 5) | (label == 7), label == 9], [1, 2, 255]))


def test_ct_is_clipped_then_scaled_and_others_have_mean_0_and_std_1() -> None:
    values = np.stack([np.linspace(-1000, 1000, 60).reshape(3, 4, 5), np.arange(60.0).reshape(3, 4, 5)])
    ct = ChannelPlan(name="ct", modality="CT", scheme="ct", lower=-100, upper=300, mean=50, std=25)
    plan = make_plan(channels=(ct, replace_scheme("zscore")), spacing_mm=(1.0, 1.0, 1.0))
    image = preprocess(Volume(values.astype(np.float32), Grid((3, 4, 5), np.eye(4))), plan).image
    np.testing.assert_allclose(image[0], (np.clip(values[0], -100, 300) - 50) / 25, rtol=1e-5)
    assert abs(image[1].mean()) < 1e-6 and abs(image[1].std() - 1) < 1e-5


def test_zscore_over_nonzero_voxels_leaves_the_others_at_zero() -> None:
    values = np.zeros((1, 4, 4, 4), np.float32)
    values[0, :2] = np.arange(1, 33).reshape(2, 4, 4)
    plan = make_plan(channels=(replace_scheme("zscore", nonzero=True),), spacing_mm=(1.0, 1.0, 1.0))
    image = preprocess(Volume(values, Grid((4, 4, 4), np.eye(4))), plan).image[0]
    assert (image[2:] == 0).all() and abs(image[:2].mean()) < 1e-6 and abs(image[:2].std() - 1) < 1e-5


def test_the_input_is_not_changed() -> None:
    values = np.random.default_rng(3).normal(size=(1, 4, 4, 4)).astype(np.float32)
    before = values.copy()
    preprocess(Volume(values, Grid((4, 4, 4), np.eye(4))), make_plan(channels=(replace_scheme("zscore"),)))
    assert np.array_equal(values, before)


def test_crop_keeps_the_box_that_is_not_background_and_its_place_in_space() -> None:
    values = np.full((1, 6, 7, 8), 3.0, np.float32)
    values[0, 2:5, 1:4, 3:7] = 9
    grid = Grid((6, 7, 8), np.array([[1.0, 0, 0, 10], [0, 1, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]]))
    result = preprocess(Volume(values, grid), make_plan(crop="nonzero", spacing_mm=(1.0, 1.0, 1.0)))
    assert result.crop == (slice(2, 5), slice(1, 4), slice(3, 7))
    assert result.image.shape == (1, 3, 3, 4) and (result.image == 9).all()
    np.testing.assert_allclose(result.grid.affine[:3, 3], [12, 21, 33])
    assert cropped(grid, result.crop).shape == (3, 3, 4)


def test_a_channel_counts_where_another_is_background() -> None:
    image = np.zeros((2, 6, 6, 6), np.float32)
    image[0, 1, 2, 3] = image[1, 4, 1, 3] = 1
    assert nonzero_box(image, ("MR", "MR")) == (slice(1, 5), slice(1, 3), slice(3, 4))
    assert nonzero_box(np.ones((1, 2, 3, 4), np.float32), ("MR",)) == (slice(0, 2), slice(0, 3), slice(0, 4))


def test_background_of_ct_is_air() -> None:
    image = np.random.default_rng(0).uniform(-1010, -990, (1, 6, 6, 6)).astype(np.float32)
    image[0, 1:5, 2:5, 3:6] = 40
    assert nonzero_box(image, ("CT",)) == (slice(1, 5), slice(2, 5), slice(3, 6))


def test_faults_are_named() -> None:
    grid = Grid((3, 3, 3), np.eye(4))
    one = np.zeros((1, 3, 3, 3), np.float32)
    with pytest.raises(DataError, match=r"has 1 channels, but the plan needs 2 \(a, b\)"):
        preprocess(Volume(one, grid), make_plan(channels=(AS_GIVEN, AS_GIVEN.model_copy(update={"name": "b"}))))
    broken = one.copy()
    broken[0, 1, 1, 1] = np.nan
    with pytest.raises(DataError, match="holds NaN or infinity"):
        preprocess(Volume(broken, grid), make_plan(channels=(replace_scheme("zscore"),)))
    conformed = preprocess(Volume(one, grid), make_plan())
    shifted = Grid((3, 3, 3), np.array([[1.0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    with pytest.raises(DataError, match="lies on another grid than its image"):
        preprocess_label(Volume(np.zeros((3, 3, 3), int), shifted), make_plan(), conformed)
    label = np.arange(27).reshape(3, 3, 3) % 2
    within = preprocess_label(Volume(label, shifted), make_plan(), conformed, grid_tolerance_mm=2.5)
    assert np.array_equal(within, preprocess_label(Volume(label, grid), make_plan(), conformed))


def test_overlapping_structures_become_bits() -> None:
    label = np.array([0, 1, 2, 4, 9]).reshape(5, 1, 1)
    plan = make_plan(structures={"whole": (1, 2, 4), "core": (1, 4)}, overlapping=True, spacing_mm=(1.0, 1.0, 1.0))
    grid = Grid((5, 1, 1), np.eye(4))
    conformed = preprocess(Volume(np.zeros((1, 5, 1, 1), np.float32), grid), plan)
    assert preprocess_label(Volume(label, grid), plan, conformed).ravel().tolist() == [0, 3, 1, 3, 0]


def replace_scheme(scheme: str, **changes: object) -> ChannelPlan:
    return ChannelPlan(**(AS_GIVEN.model_dump() | {"scheme": scheme} | changes))
