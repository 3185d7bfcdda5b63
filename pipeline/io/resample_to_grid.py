"""One channel onto the grid of another: where MR, CT and PET of a subject were stored with different voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.io.geometry import Grid


def resample_to_grid(array_CXYZ: NDArray[np.float32], source: Grid, target: Grid) -> NDArray[np.float32]:
    """`array_CXYZ` of `source` interpolated linearly at the voxel centres of `target`, wherever both lie.

    Beyond the outer voxels of the source each channel has its smallest value, which is its background.
    """
    from scipy import ndimage

    to_source = np.linalg.inv(source.affine) @ target.affine
    result = np.empty((len(array_CXYZ), *target.shape), np.float32)
    for channel, out in zip(array_CXYZ, result, strict=True):
        background = float(channel.min())
        out[...] = ndimage.affine_transform(
            channel, to_source[:3, :3], to_source[:3, 3], target.shape, order=1, cval=background
        )
    return result
