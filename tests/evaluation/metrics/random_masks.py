"""Masks for the tests of metrics: random blobs, and hypothesis strategies for small pairs with spacing."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

SPACINGS_MM = st.tuples(*[st.sampled_from((0.5, 0.8, 1.0, 1.3, 2.0, 3.7))] * 3)
TINY_SHAPES = st.tuples(*[st.integers(1, 6)] * 3)


def blobs(seed: int, shape: tuple[int, int, int] = (30, 26, 22)) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping random blobs that are not empty."""
    rng = np.random.default_rng(seed)
    common = gaussian_filter(rng.normal(size=shape), 3)
    one, other = (common + 0.7 * gaussian_filter(rng.normal(size=shape), 2.5) for _ in range(2))
    return one > np.quantile(one, 0.8), other > np.quantile(other, 0.8)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Two masks of one small shape, neither empty, and a spacing."""
    shape = draw(TINY_SHAPES)
    masks = [draw(arrays(bool, shape).filter(lambda mask: mask.any())) for _ in range(2)]
    return masks[0], masks[1], draw(SPACINGS_MM)
