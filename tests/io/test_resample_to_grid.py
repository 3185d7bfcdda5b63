"""Channels on another grid: linear interpolation gives back whatever is linear in millimetres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.io.geometry import Grid
from pipeline.io.image_file_error import ImageFileError
from pipeline.io.read_image import read_image
from pipeline.io.resample_to_grid import resample_to_grid
from tests.dataset.small_datasets import affine, save, scan
from tests.io.test_read_image import oblique


def ramp(grid: Grid) -> np.ndarray:
    """2 R - 3 A + 5 S at the centre of each voxel, in mm."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    place_mm = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return (place_mm @ [2.0, -3.0, 5.0]).astype(np.float32)


def test_a_ramp_in_mm_stays_a_ramp() -> None:
    source = Grid((20, 18, 16), oblique((1.0, 1.0, 1.0)))
    small = oblique((0.7, 0.9, 1.4)) @ np.diag([-1, 1, 1, 1])
    small[:3, 3] = (source.affine @ [10, 6, 3, 1])[:3]
    target = Grid((8, 8, 8), small)
    assert np.allclose(resample_to_grid(ramp(source)[None], source, target)[0], ramp(target), atol=1e-3)


def test_beyond_the_field_of_view_is_background() -> None:
    source = Grid((4, 4, 4), np.eye(4))
    array = np.full((1, 4, 4, 4), 9.0, np.float32)
    array[0, 1, 1, 1] = -5
    away = np.eye(4)
    away[0, 3] = 100
    assert (resample_to_grid(array, source, Grid((3, 3, 3), away)) == -5).all()


def test_an_image_of_two_grids_is_read_when_asked(tmp_path: Path) -> None:
    first = save(tmp_path / "a_0000.nii.gz", scan(1))
    second = save(tmp_path / "a_0001.nii.gz", scan(2, (7, 6, 10)), affine((2, 2, 2), (5.5, -6.5, 9)))
    with pytest.raises(
        ImageFileError, match=r"it lies on another grid than a_0000\.nii\.gz: shape 7×6×10 instead of 14×12×10"
    ):
        read_image([first, second])
    volume = read_image([first, second], resample_channels=True)
    assert volume.array.shape == (2, 14, 12, 10)
    assert np.array_equal(volume.array[0], scan(1))
    # Voxel (2, 2, 2) of the first grid lies between (0.75, 0.75, 2) of the second, along x and y.
    low, high = scan(2, (7, 6, 10))[0:2, 0:2, 2].astype(np.float64), 0.75
    expected = (low * np.outer([1 - high, high], [1 - high, high])).sum()
    assert volume.array[1, 2, 2, 2] == pytest.approx(expected, rel=1e-5)
