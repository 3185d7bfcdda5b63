"""Overlays: the picture shows the right voxels, the right way round."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from pipeline.preprocessing.plan import ChannelPlan
from pipeline.reporting.channel_contrast import contrasts, separability
from pipeline.reporting.contours import contour_path
from pipeline.reporting.intensity_window import Window
from pipeline.reporting.overlays import OverlaySettings, pixels_for, three_planes
from pipeline.reporting.png_image import png
from pipeline.reporting.slices import CaseVolumes, Slices, busiest_slice, cut


def test_png_holds_exactly_the_grey_values():
    grey = np.random.default_rng(0).integers(0, 256, (37, 53), np.uint8)
    image = Image.open(io.BytesIO(png(grey)))
    image.verify()
    assert (np.asarray(Image.open(io.BytesIO(png(grey)))) == grey).all()


def test_contour_of_one_voxel_is_a_diamond_around_its_centre():
    """Row 1, column 2 of voxels 2 mm high and 1 mm wide: centre (2.5, 3.0) mm, half a voxel each way."""
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = True
    points = {tuple(map(float, p.split())) for p in re.findall(r"[\d.]+ [\d.]+", contour_path(mask, (2.0, 1.0)))}
    assert points == {(2.5, 2.0), (3.0, 3.0), (2.5, 4.0), (2.0, 3.0)}


def test_contour_at_the_border_is_closed_and_an_empty_mask_has_none():
    full = contour_path(np.ones((3, 3), bool), (1.0, 1.0))
    assert full.count("M") == 1 and full.endswith("Z")
    assert contour_path(np.zeros((3, 3), bool), (1.0, 1.0)) == ""


def test_the_slice_shown_is_the_one_where_both_differ_most():
    reference = np.zeros((5, 5, 9), np.uint8)
    reference[1:4, 1:4, 2:8] = 1
    prediction = reference.copy()
    assert busiest_slice(reference, prediction, 2) == 2  # equal: the first with most labelled voxels
    prediction[1:4, 1:4, 6] = 0
    assert busiest_slice(reference, prediction, 2) == 6
    empty = np.zeros_like(reference)
    assert busiest_slice(empty, empty, 2) == 4


def test_the_patients_right_is_on_the_left_and_the_front_is_up():
    """One bright voxel far right (x), anterior (y) and superior (z) of the middle."""
    image = np.zeros((9, 9, 9), np.float32)
    image[8, 8, 8] = 1.0
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[8, 8, 8] = 1  # the busiest slices go through it
    slices = cut(CaseVolumes(image[None], labels, 0 * labels, (1.0, 1.0, 1.0)))
    markup = three_planes(slices, {"spot": (1,)}, OverlaySettings(windows=(Window(0, 1),)))
    found = pictures(markup)
    assert len(found) == 3
    for picture in found:
        assert np.argwhere(picture == 255).tolist() == [[0, 0]]  # top left in axial, coronal and sagittal
    assert re.findall(r'class="letter"[^>]*>([RLAPSI])<', markup) == list("RLAPRLSIAPSI")


def test_reference_and_prediction_are_drawn_only_where_they_are():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[3:6, 3:6, 3:6] = 2
    scene = CaseVolumes(labels[None].astype(np.float32), labels, np.zeros_like(labels), (1.0, 1.0, 1.0))
    markup = three_planes(cut(scene), {"a": (1,), "b": (2, 3)})
    assert markup.count('class="reference"') == 3 and 'class="prediction"' not in markup
    assert "<title>b, reference</title>" in markup and "<title>a, " not in markup


def test_ct_is_shown_in_a_window_a_little_wider_than_planned_and_mr_in_its_own():
    ct = ChannelPlan(name="CT", modality="CT", scheme="ct", lower=-100.0, upper=300.0, mean=0.0, std=1.0)
    assert Window.planned(ct) == Window(-160.0, 360.0)
    assert Window.planned(ChannelPlan(name="T1", modality="MR", scheme="zscore")) is None
    assert Window(-100, 100).to_grey(np.array([[-500.0, -100, 0, 100, 900, np.nan]])).tolist() == [
        [0, 0, 128, 255, 255, 0]
    ]


@pytest.mark.parametrize("fill", [np.nan, 7.0])
def test_flat_or_undefined_images_do_not_fail(fill: float):
    image = np.full((2, 4, 4, 4), fill, np.float32)
    labels = np.zeros((4, 4, 4), np.uint8)
    slices = cut(CaseVolumes(image, labels, labels, (1.0, 1.0, 1.0)))
    assert three_planes(slices, {"a": (1,)}).count("<svg") == 3
    assert contrasts(slices, {"a": (1,)}).tolist() == [0, 0]


def test_a_large_plane_is_thinned_so_that_the_page_stays_small():
    slices = noise(channels=1, side=512)
    assert max(pictures(three_planes(slices, {"a": (1,)}))[0].shape) <= 320


@pytest.mark.parametrize(("cases", "channels"), [(9, 1), (9, 4), (60, 4)])
def test_noise_in_every_picture_stays_within_the_page(cases: int, channels: int):
    """Noise packs worst of all. So many cases of so many channels may take 6.7 MB of the page's 10."""
    shown = OverlaySettings(tuple(range(channels)), (None,) * channels, pixels_for(cases * 3 * channels))
    markup = three_planes(noise(channels, side=340), {"a": (1,)}, shown)
    assert len(pictures(markup)) == 3 * channels
    assert cases * len(markup) < 6.7e6


def noise(channels: int, side: int) -> Slices:
    image = np.random.default_rng(0).normal(size=(channels, side, side, side // 4)).astype(np.float32)
    labels = np.zeros(image.shape[1:], np.uint8)
    labels[5:-5, 5:-5] = 1
    return cut(CaseVolumes(image, labels, labels, (1.0, 1.0, 3.0)))


def pictures(markup: str) -> list[np.ndarray]:
    """The grey values of every picture in a piece of page."""
    found = re.findall(r"base64,([^\"]+)", markup)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_separability_is_what_it_says():
    """Five values against five: above all, above none, above half; turned round, and as good as equal."""
    low, high = np.arange(5.0), np.arange(10.0, 15)
    assert separability(high, low) == separability(low, high) == 1
    assert separability(low, low) == 0
    assert separability(np.array([1.0, 3]), np.array([0.0, 2])) == pytest.approx(0.5)  # 3 of 4 pairs are in order
    assert separability(np.array([np.nan]), low) == 0


def test_the_channel_that_shows_the_structure_is_found():
    """Channel 0 is noise, 1 has a dark structure on bright ground, 2 is a gradient that has nothing to do with it."""
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[12:28, 12:28, 12:28] = 1
    draw = np.random.default_rng(0)
    gradient = np.broadcast_to(np.linspace(0, 1000, 40)[:, None, None], labels.shape)
    image = np.stack([draw.normal(size=labels.shape), 5.0 - 3 * labels + draw.normal(size=labels.shape), gradient])
    found = contrasts(cut(CaseVolumes(image.astype(np.float32), labels, labels, (1.0, 1.0, 1.0))), {"organ": (1,)})
    assert found.argmax() == 1
    assert found[1] > 0.9
    assert found[[0, 2]].max() < 0.2


def test_contours_of_speckles_stay_within_their_bytes():
    """Half of all voxels at random: every one with corners of its own. A cube's contour is left as it is."""
    speckles = (np.random.default_rng(0).random((256, 256, 3)) < 0.5).astype(np.uint8)
    slices = cut(CaseVolumes(np.zeros((1, *speckles.shape), np.float32), speckles, speckles, (1.0, 1.0, 1.0)))
    markup = str(three_planes(slices, {"spot": (1,)}, OverlaySettings(contour_bytes=20_000)))
    paths = re.findall(r'<path[^>]* d="([^"]*)"', markup)
    assert paths and sum(map(len, paths)) < 3 * 20_000
    cube = np.zeros((64, 64, 64), np.uint8)
    cube[20:40, 20:40, 20:40] = 1
    slices = cut(CaseVolumes(np.zeros((1, *cube.shape), np.float32), cube, cube, (1.0, 1.0, 1.0)))
    whole, tight = (
        str(three_planes(slices, {"cube": (1,)}, OverlaySettings(contour_bytes=n))) for n in (100_000, 5_000)
    )
    assert whole == tight
