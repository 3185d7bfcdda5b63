"""From an image to labels on its own grid: orientation, spacing, crop, label values, uncertainty, ensembles."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from pipeline.base.errors import DataError
from pipeline.inference.backends.torch_backend import TorchModel, mirror_axis_sets
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.inference.slab_blending import best_layout
from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import ChannelPlan, Plan

CPU = torch.device("cpu")
AXCODES = ["".join(codes) for codes in itertools.product("RL", "AP", "SI")]
ORIENTATIONS = [*AXCODES, "ASR", "PIR", "SRA", "LSP"]


def plan_for(spacing_mm=(1.0, 1.0, 1.0), structures=None, patch_size=(16, 16, 16), **changes):
    return Plan(
        spacing_mm=spacing_mm,
        channels=(ChannelPlan(name="t1", modality="MR", scheme="none"),),
        structures=structures or {"low": (1,), "high": (7,)},
        patch_size=patch_size,
        batch_size=1,
        network={"name": "unet"},
        max_steps=1,
        precision="fp32",
        device="cpu",
        **changes,
    )


def nearest_class(windows):
    """The network that knows: an intensity of k belongs to class k."""
    return torch.cat([-((windows - k) ** 2) for k in range(3)], dim=1)


def blobs(shape):
    """Two structures in background, each touching neither the border nor the other's far end: classes 0, 1, 2."""
    x, y, z = np.indices(shape)
    found = np.zeros(shape, np.uint8)
    found[((x - 0.4 * shape[0]) ** 2 + (y - 0.5 * shape[1]) ** 2 + (z - 0.5 * shape[2]) ** 2) < 60] = 1
    found[((x - 0.6 * shape[0]) ** 2 + (y - 0.6 * shape[1]) ** 2 + (z - 0.4 * shape[2]) ** 2) < 30] = 2
    return found


def stored_as(classes, axcodes, spacing_mm):
    """A volume whose file has the axes of `axcodes`, with its classes as intensities."""
    image = nib.Nifti1Image(classes, np.diag([*spacing_mm, 1.0]))
    wanted = nib.orientations.axcodes2ornt(axcodes)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted))
    array = np.asarray(turned.dataobj)
    return Volume(array[None].astype(np.float32), Grid(array.shape, turned.affine))


def predictor(plan, network=nearest_class, **settings):
    return Predictor(plan, TorchModel([network], CPU), PredictorConfig(**settings))


def test_windows_may_be_larger_than_the_patch():
    seen, image = set(), stored_as(blobs((22, 27, 31)), "RAS", (1, 1, 1))

    def network(windows):
        seen.add(tuple(windows.shape[2:]))
        return nearest_class(windows)

    small = predictor(plan_for()).predict(image)
    large = predictor(plan_for(), network, roi_size=(24, 24, 32)).predict(image)
    assert seen == {(24, 24, 32)} and (small.windows, large.windows) == (2 * 3 * 3, 2)
    np.testing.assert_array_equal(small.labels.array, large.labels.array)


@pytest.mark.parametrize("sw_batch_size", [1, 3, 50])
@pytest.mark.parametrize("more", [{}, {"sigma_scale": 0.25}, {"mode": "constant", "overlap": 0.7}])
def test_the_whole_way_gives_the_labels_of_monai(sw_batch_size, more):
    """With a network whose answer depends on where in its window a voxel lies."""
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 3, 5, padding=2).eval()
    image = stored_as(np.random.default_rng(0).normal(size=(22, 27, 31)).astype(np.float32), "RAS", (1, 1, 1))
    settings = {"overlap": 0.5, "mode": "gaussian", "sigma_scale": 0.125} | more
    with torch.no_grad():
        logits = sliding_window_inference(torch.from_numpy(image.array[None]), (16, 16, 16), 4, network, **settings)
    found = predictor(plan_for(patch_size=(16, 16, 16)), network, sw_batch_size=sw_batch_size, **settings).predict(
        image
    )
    np.testing.assert_array_equal(found.labels.array, np.array([0, 1, 7])[logits[0].argmax(0).numpy()])


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_the_network_that_knows_is_right_in_every_orientation(axcodes):
    image = stored_as(blobs((22, 27, 31)), axcodes, (1, 1, 1))
    found = predictor(plan_for()).predict(image).labels
    assert found.array.dtype == np.uint8
    np.testing.assert_array_equal(found.array, np.array([0, 1, 7])[image.array[0].astype(int)])
    assert found.grid is image.grid


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA"])
@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7, 2.5), (3.0, 1.0, 0.9)])
def test_anisotropic_images_come_back_on_their_own_grid(axcodes, spacing_mm):
    """The planned grid is finer here, so that nothing of the structures is lost on the way there."""
    image = stored_as(blobs((22, 27, 31)), axcodes, spacing_mm)
    plan = plan_for(spacing_mm=tuple(s * 0.6 for s in spacing_mm))
    found = predictor(plan).predict(image).labels.array
    expected = np.array([0, 1, 7])[image.array[0].astype(int)]
    assert found.shape == expected.shape
    for value in (1, 7):
        both, each = ((found == value) & (expected == value)).sum(), (found == value).sum() + (expected == value).sum()
        # the intensities between 0 and 2 look like class 1, so a rim of it may appear
        assert 2 * both / each > 0.75


def test_cropping_to_what_is_not_background_changes_nothing_outside():
    classes = np.zeros((30, 24, 20), np.uint8)
    classes[8:20, 6:18, 4:14] = blobs((12, 12, 10)) + 1
    image = stored_as(classes, "LPS", (1, 1, 1))
    plan = plan_for(crop="nonzero")
    uncropped = predictor(plan_for()).predict(image).labels.array
    np.testing.assert_array_equal(predictor(plan).predict(image).labels.array, uncropped)


def test_nested_regions_are_painted_from_the_outside_in():
    classes = blobs((22, 27, 31))
    classes[classes == 2] = 3
    classes[11:14, 14:17, 12:15] = 2
    image = stored_as(classes, "RAS", (1, 1, 1))
    structures = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    plan = plan_for(structures=structures, overlapping=True)

    def regions(windows):
        return torch.cat([windows - 0.5, windows - 1.5, windows - 2.5], dim=1)

    np.testing.assert_array_equal(predictor(plan, regions).predict(image).labels.array, classes)


def test_labels_above_255_take_two_bytes():
    image = stored_as(blobs((20, 20, 20)), "RAS", (1, 1, 1))
    found = predictor(plan_for(structures={"low": (1,), "high": (300,)})).predict(image).labels.array
    assert found.dtype == np.uint16
    assert set(np.unique(found)) == {0, 1, 300}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused(value):
    image = stored_as(blobs((20, 20, 20)), "RAS", (1, 1, 1))
    image.array[0, 3, 4, 5] = value
    with pytest.raises(DataError, match=r"channel t1 has 1 voxel\(s\) that are NaN or infinite"):
        predictor(plan_for()).predict(image)


def test_missing_channels_are_named():
    image = Volume(np.zeros((2, 8, 8, 8), np.float32), Grid((8, 8, 8), np.eye(4)))
    with pytest.raises(DataError, match=r"2 channel\(s\) found, but the model takes 1: t1"):
        predictor(plan_for()).predict(image)


def test_uncertainty_is_1_where_the_network_knows_nothing_and_0_where_it_is_sure():
    image = stored_as(blobs((20, 20, 20)), "RAS", (1, 1, 1))

    def half_sure(windows):
        logits = torch.zeros(windows.shape[0], 3, *windows.shape[2:])
        logits[:, 1][windows[:, 0] > 0.5] = 100.0
        return logits

    prediction = predictor(plan_for(), half_sure, uncertainty=True, mode="constant", overlap=0.0).predict(image)
    found = image.array[0] > 0.5
    np.testing.assert_allclose(prediction.uncertainty.array[found], 0, atol=1e-6)
    np.testing.assert_allclose(prediction.uncertainty.array[~found], 1, atol=1e-6)
    assert prediction.score == pytest.approx(0, abs=1e-6)


def test_where_nothing_is_found_the_score_is_that_of_everything_predicted():
    """Undecided everywhere, and so background: not what is left out by the crop, in which no network was asked."""
    classes = np.zeros((30, 24, 20), np.uint8)
    classes[8:20, 6:18, 4:14] = 1

    def undecided(windows):
        return torch.zeros(windows.shape[0], 3, *windows.shape[2:])

    prediction = predictor(plan_for(crop="nonzero"), undecided, uncertainty=True).predict(
        stored_as(classes, "LPS", (1, 1, 1))
    )
    assert not prediction.labels.array.any() and prediction.uncertainty.array.mean() < 0.2
    assert prediction.score == pytest.approx(1)


def test_probabilities_sum_to_one_and_agree_with_the_labels():
    image = stored_as(blobs((20, 21, 22)), "LPS", (1, 1, 2))
    prediction = predictor(plan_for(), probabilities=True).predict(image)
    p = prediction.probabilities.array
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(np.array([0, 1, 7])[p.argmax(axis=0)], prediction.labels.array)


def test_an_ensemble_averages_logits_and_its_disagreement_is_0_or_1_at_the_ends():
    def sure_of(k):
        def network(windows):
            logits = torch.zeros(windows.shape[0], 3, *windows.shape[2:])
            logits[:, k] = 100.0
            return logits

        return network

    window = np.zeros((1, 1, 4, 4, 4), np.float32)
    agreeing = TorchModel([sure_of(1), sure_of(1)], CPU, disagreement=True)(window)
    opposed = TorchModel([sure_of(1), sure_of(2)], CPU, disagreement=True)(window)
    torch.testing.assert_close(agreeing[:, 3], torch.zeros(1, 4, 4, 4))
    torch.testing.assert_close(opposed[:, 3], torch.ones(1, 4, 4, 4))
    torch.testing.assert_close(opposed[0, :, 0, 0, 0], torch.tensor([0.0, 50.0, 50.0, 1.0]))


def test_mirrored_views_make_any_network_symmetric():
    torch.manual_seed(0)
    kernel = torch.randn(3, 1, 3, 3, 3)

    def network(x):
        return torch.nn.functional.conv3d(x, kernel, padding=1)

    assert mirror_axis_sets((0, 2)) == ((), (0,), (2,), (0, 2))
    model = TorchModel([network], CPU, mirror_axes=(0, 2))
    window = torch.randn(1, 1, 6, 6, 6)
    for axis in (2, 4):
        mirrored = model(window.flip(axis).numpy())
        torch.testing.assert_close(mirrored.flip(axis), model(window.numpy()), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(window.flip(3).numpy()).flip(3), model(window.numpy()), atol=1e-3)


def test_the_longest_axis_is_worked_along():
    layout, axes = best_layout((512, 512, 800), (96, 96, 96), PredictorConfig(), half=True)
    assert axes[0] == 2
    assert layout.windows.image_shape == (800, 512, 512)
    assert best_layout((64, 64, 64), (32, 32, 32), PredictorConfig(), half=False)[1] == (0, 1, 2)
