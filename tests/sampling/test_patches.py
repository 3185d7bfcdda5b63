"""Laws of sampling: pure functions, inside the image, the share of structures met, and every epoch whole."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.rng import RandomPurpose, generator
from pipeline.sampling.augmentation.spatial_transforms import SpatialParams, resample, rotation
from pipeline.sampling.patches import (
    PatchLocation,
    PatchWithMargin,
    cut_batch,
    cut_patch,
    cut_with_margin,
    draw_batch,
    draw_location,
)


@dataclass
class MemoryCases:
    """Cases whose voxels say where they are: channel 0 holds the flat index."""

    shapes: dict[str, tuple[int, int, int]]
    structures: int = 2
    dtype: type = np.uint8
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, (case, shape) in enumerate(self.shapes.items()):
            chosen = np.random.default_rng(i).choice(self.structures + 1, shape, p=None)
            self.labels[case] = chosen.astype(self.dtype)

    def shape(self, case: str) -> tuple[int, int, int]:
        return self.shapes[case]

    def image(self, case: str) -> np.ndarray:
        shape = self.shapes[case]
        return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(1, *shape)

    def label(self, case: str) -> np.ndarray:
        return self.labels[case]

    def locations(self, case: str) -> dict[int, np.ndarray]:
        found = {k: np.argwhere(self.labels[case] == k) for k in range(1, self.structures + 1)}
        return {k: voxels for k, voxels in found.items() if len(voxels)}


shapes = st.tuples(*[st.integers(2, 14)] * 3)


@given(shape=shapes, patch=shapes, index=st.integers(0, 10_000), seed=st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_a_patch_lies_inside_its_image_or_the_image_inside_the_patch(
    shape: tuple, patch: tuple, index: int, seed: int
) -> None:
    cases = MemoryCases({"a": shape})
    place = draw_location(cases, ["a"], patch, seed, index, oversample=0.5)
    for start, n, size in zip(place.start, shape, patch, strict=True):
        if n >= size:
            assert 0 <= start <= n - size
        else:
            assert n - size <= start <= 0
    batch = cut_batch(cases, [place], patch)
    covered = int(np.prod(np.minimum(shape, patch)))
    assert (batch.image_BCXYZ != 0).sum() == covered
    assert len(np.unique(batch.image_BCXYZ)) == covered + (covered < np.prod(patch))


@given(
    cases=st.integers(1, 7),
    batch_size=st.integers(1, 5),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_the_share_of_structures_is_met_and_each_epoch_sees_each_case_once(
    cases: int, batch_size: int, share: float, seed: int
) -> None:
    store = MemoryCases({f"c{i}": (5, 6, 7) for i in range(cases)})
    steps = 12
    places = [
        place
        for step in range(steps)
        for place in draw_batch(store, list(store.shapes), (3, 3, 3), batch_size, seed, step, share).places
    ]
    centred = sum(place.structure is not None for place in places)
    assert abs(centred - share * len(places)) <= 1
    for first in range(0, len(places) - cases + 1, cases):
        assert len({place.case for place in places[first : first + cases]}) == cases


def test_centred_patches_hold_their_structure() -> None:
    store = MemoryCases({"a": (9, 9, 9)}, structures=1)
    store.labels["a"][:] = 0
    store.labels["a"][0, 8, 4] = 1
    for index in range(20):
        place = draw_location(store, ["a"], (3, 3, 3), 0, index, oversample=1.0)
        assert place.structure == 1
        assert cut_batch(store, [place], (3, 3, 3)).label_BXYZ.max() == 1


def test_structures_are_chosen_as_often_as_their_weights_say() -> None:
    store = MemoryCases({"a": (9, 9, 9)}, structures=3)

    def chosen(weights: list[float] | None) -> Counter:
        return Counter(
            draw_location(store, ["a"], (3, 3, 3), 0, index, 1.0, weights).structure for index in range(2000)
        )

    for weights, expected in ((None, [1 / 3] * 3), ([1.0, 0.0, 3.0], [0.25, 0.0, 0.75])):
        counts = chosen(weights)
        np.testing.assert_allclose([counts[k] / 2000 for k in (1, 2, 3)], expected, atol=0.04)


def test_patches_anywhere_begin_everywhere_equally_often() -> None:
    """27 places, 2700 patches: chi-square with 26 degrees of freedom is under 54 but for one seed in a thousand."""
    store = MemoryCases({"a": (5, 6, 7)})
    starts = Counter(draw_location(store, ["a"], (3, 4, 5), 0, index, oversample=0.0).start for index in range(2700))
    assert set(starts) == {(x, y, z) for x in range(3) for y in range(3) for z in range(3)}
    assert sum((count - 100) ** 2 / 100 for count in starts.values()) < 54


def test_a_case_without_structures_gives_patches_from_anywhere() -> None:
    store = MemoryCases({"a": (9, 9, 9)})
    store.labels["a"][:] = 0
    assert draw_location(store, ["a"], (3, 3, 3), 0, 0, oversample=1.0).structure is None


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_in_any_order_draws_the_same(workers: int) -> None:
    store = MemoryCases({f"c{i}": (8, 9, 10) for i in range(5)})

    def draw(step: int) -> np.ndarray:
        return draw_batch(store, list(store.shapes), (4, 4, 4), 3, seed=7, step=step).image_BCXYZ

    expected = [draw(step) for step in range(16)]
    with ThreadPoolExecutor(workers) as pool:
        drawn = dict(zip(reversed(range(16)), pool.map(draw, reversed(range(16))), strict=True))
    assert all(np.array_equal(drawn[step], expected[step]) for step in range(16))


def test_a_batch_cut_in_two_draws_the_same_patches() -> None:
    store = MemoryCases({f"c{i}": (8, 9, 10) for i in range(5)})
    whole = [p for step in range(6) for p in draw_batch(store, list(store.shapes), (4, 4, 4), 4, 1, step).places]
    halves = [p for step in range(12) for p in draw_batch(store, list(store.shapes), (4, 4, 4), 2, 1, step).places]
    assert whole == halves


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
        resample(whole, SpatialParams(rotation([0.1, 0.2, 0.3]), None, (False,) * 3), patch, (1.0, 1.0, 1.0))
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
    turned = SpatialParams(rotation([0.2, -0.1, 0.3]) * 0.9, None, (False,) * 3)
    found, expected = (resample(each, turned, patch, (1.0, 1.0, 2.0)) for each in (view, cut))
    torch.testing.assert_close(found[0], expected[0], atol=0.05, rtol=1e-5)  # neighbouring slices differ by 238
    assert torch.equal(found[1], expected[1])


def test_generators_of_different_numbers_differ() -> None:
    drawn = {
        tuple(generator(seed, purpose, step, position).integers(2**60, size=2))
        for seed in (0, 1)
        for purpose in (RandomPurpose.PLACE, RandomPurpose.AUGMENT)
        for step in (0, 1, 2**33)
        for position in (0, 1)
    }
    assert len(drawn) == 24
