"""Patches as they are cut, with and without a margin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sampling.augmentation.random_parameters import SpatialParams
from pipeline.sampling.augmentation.rotation_matrix import rotation_matrix
from pipeline.sampling.augmentation.spatial_transforms import resample
from pipeline.sampling.cut_patches import PatchWithMargin, cut_batch, cut_patch, cut_with_margin
from pipeline.sampling.draw_batch import draw_batch
from pipeline.sampling.patch_locations import PatchLocation, draw_location
from tests.sampling.test_patch_locations import MemoryCases


def test_the_margin_shows_what_lies_around_the_patch() -> None:
    store = MemoryCases({"a": (9, 9, 9)})
    place = draw_location(store, ["a"], (3, 4, 5), 0, 3)
    plain = cut_batch(store, [place], (3, 4, 5))
    wide = cut_batch(store, [place], (3, 4, 5), margin=(2, 1, 3))
    assert wide.image_BCXYZ.shape == (1, 1, 7, 6, 11)
    assert np.array_equal(wide.image_BCXYZ[..., 2:-2, 1:-1, 3:-3], plain.image_BCXYZ)
    assert np.array_equal(wide.label_BXYZ[..., 2:-2, 1:-1, 3:-3], plain.label_BXYZ)
    padded = np.pad(store.image("a")[0], [(2, 2), (1, 1), (3, 3)], mode="edge")
    x, y, z = place.start
    assert np.array_equal(wide.image_BCXYZ[0, 0], padded[x : x + 7, y : y + 6, z : z + 11])


def test_what_lies_beyond_a_small_image_is_0_and_beyond_a_large_one_its_edge() -> None:
    store = MemoryCases({"a": (2, 9, 9)})
    for index in range(10):
        place = draw_location(store, ["a"], (4, 9, 9), 0, index)
        cut = cut_batch(store, [place], (4, 9, 9), margin=(1, 2, 0)).image_BCXYZ[0, 0]
        filled = np.zeros((6, 9, 9), np.float32)
        filled[1 - place.start[0] : 3 - place.start[0]] = store.image("a")[0]
        assert np.array_equal(cut, np.pad(filled, [(0, 0), (2, 2), (0, 0)], mode="edge"))


def test_labels_come_in_types_that_torch_computes_with() -> None:
    store = MemoryCases({"a": (4, 4, 4)}, dtype=np.uint16)
    store.labels["a"][0, 0, 0] = 65535
    label = draw_batch(store, ["a"], (4, 4, 4), 1, 0, 0).label_BXYZ
    assert label.dtype == torch.int32 and label.max() == 65535


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells how much of a map is in memory")
@pytest.mark.parametrize("turned", [False, True])
def test_only_the_voxels_of_the_patch_are_read(tmp_path: Path, turned: bool) -> None:
    """Of a map of 64 MB a patch of 4 × 5 × 6 brings in the few pages of its 7 × 7 rows, cut or turned in place."""
    shape, patch = (200, 200, 400), (4, 5, 6)
    file = np.lib.format.open_memmap(tmp_path / "voxels.npy", "w+", np.float32, (1, *shape))
    del file  # written as a hole: nothing of it is in memory
    image = np.load(tmp_path / "voxels.npy", mmap_mode="c")
    store = MemoryCases({})
    store.shapes["a"] = shape
    store.image = lambda case: image
    label = np.zeros(shape, np.uint8)
    store.label = lambda case: label
    place = PatchLocation("a", (100, 100, 200))
    if turned:
        whole = cut_with_margin(store, place, patch, margin=(1, 1, 1))
        resample(whole, SpatialParams(rotation_matrix([0.1, 0.2, 0.3]), None, (False,) * 3), patch, (1.0, 1.0, 1.0))
    else:
        cut_patch(store, place, patch, margin=(1, 1, 1))
    assert 0 < resident_bytes(tmp_path / "voxels.npy") < 8e6


def resident_bytes(mapped: Path) -> int:
    """How much of a mapped file this process has in memory."""
    lines = iter(Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.endswith(str(mapped)):
            return next(1024 * int(size.split()[1]) for size in lines if size.startswith("Rss:"))
    raise AssertionError(f"{mapped} is not mapped")


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_views_show_what_a_cut_shows(index: int, wide: bool) -> None:
    """Turned in place, within the view into the image, a patch is what it is when cut out with its margin first."""
    store = MemoryCases({"a": (12, 17, 14), "b": (5, 16, 16)})
    patch, around = (6, 7, 8), (2, 3, 1) if wide else (0, 0, 0)
    place = draw_location(store, ["a", "b"], patch, 0, index)
    view, cut = (
        cut_with_margin(store, place, patch, around),
        PatchWithMargin(*cut_patch(store, place, patch, around), around),
    )
    assert all(n <= length for n, length in zip(view.label.shape, cut.label.shape, strict=True))
    turned = SpatialParams(rotation_matrix([0.2, -0.1, 0.3]) * 0.9, None, (False,) * 3)
    found, expected = (resample(each, turned, patch, (1.0, 1.0, 2.0)) for each in (view, cut))
    torch.testing.assert_close(found[0], expected[0], atol=0.05, rtol=1e-5)  # neighbouring slices differ by 238
    assert torch.equal(found[1], expected[1])
