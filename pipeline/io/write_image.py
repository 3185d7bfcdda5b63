"""Floating-point maps written as NIfTI, atomically."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.base.files import atomic_write
from pipeline.io.volume import Volume


def write_image(path: Path, volume: Volume) -> None:
    """Writes a map (X, Y, Z) or maps (K, X, Y, Z) of fp32 as NIfTI, atomically; the channels become the last axis."""
    import nibabel as nib

    array = volume.array if volume.array.ndim == 3 else np.moveaxis(volume.array, 0, -1)
    image = nib.Nifti1Image(array.astype(np.float32, copy=False), volume.grid.affine)
    image.header.set_xyzt_units("mm")
    atomic_write(path, lambda temporary: nib.save(image, temporary))
