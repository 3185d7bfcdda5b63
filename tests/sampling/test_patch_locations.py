"""Laws of sampling: pure functions, inside the image, the share of structures met, and every epoch whole."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.rng import RandomPurpose, generator
from pipeline.sampling.cut_patches import cut_batch
from pipeline.sampling.draw_batch import draw_batch
from pipeline.sampling.patch_locations import draw_location


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


def test_generators_of_different_numbers_differ() -> None:
    drawn = {
        tuple(generator(seed, purpose, step, position).integers(2**60, size=2))
        for seed in (0, 1)
        for purpose in (RandomPurpose.PLACE, RandomPurpose.AUGMENT)
        for step in (0, 1, 2**33)
        for position in (0, 1)
    }
    assert len(drawn) == 24
