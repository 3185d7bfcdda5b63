"""The geometry contract: a predictor that knows the answer gives the label back, whatever way a file lies in space.

All 48 orientations, anisotropic voxels and an oblique affine, from file to file. Where axes are only permuted and
flipped the label comes back voxel by voxel; where the plan resamples, errors stay within one voxel of a border.
"""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.inference.arrays.numpy_arrays import NumpyArrays
from pipeline.inference.predictor import Predictor
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.io.write_label import write_label
from pipeline.preprocessing.plan import ChannelPlan, Plan

ORIENTATIONS = [
    "".join(code) for axes in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*axes)
]
SPACING_MM = (0.8, 1.1, 2.4)
VALUES = (3, 200)


class Knowing:
    """A model whose logits are the image's own channels: one mask per structure, and background where there is none."""

    arrays = NumpyArrays()
    backend = "identity"
    disagreement = False

    def __call__(self, windows: NDArray) -> NDArray:
        background = 1 - windows.sum(axis=1, keepdims=True)
        return np.concatenate([background, windows], axis=1)

    def inference_context(self) -> AbstractContextManager[None]:
        return nullcontext()


def make_plan(spacing_mm: tuple[float, float, float]) -> Plan:
    return Plan(
        spacing_mm=spacing_mm,
        channels=tuple(ChannelPlan(name=name, modality="MR", scheme="none") for name in ("left", "right")),
        structures={"left": (VALUES[0],), "right": (VALUES[1],)},
        patch_size=(16, 16, 16),
        batch_size=2,
        network={"name": "unet"},
        max_steps=1,
        precision="fp32",
        device="cpu",
        image_interpolation="linear",
    )


def truth() -> NDArray[np.uint8]:
    """Two bodies without any symmetry, so that no turn or flip goes unseen."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in (22, 19, 17)), indexing="ij")
    label = np.zeros(x.shape, np.uint8)
    label[((x - 7) / 5) ** 2 + ((y - 6) / 4) ** 2 + ((z - 10) / 5) ** 2 < 1] = VALUES[0]
    label[((x - 15) / 4) ** 2 + ((y - 12) / 5) ** 2 + ((z - 5) / 3.5) ** 2 < 1] = VALUES[1]
    return label


def oblique() -> NDArray[np.float64]:
    """RAS+ but tilted by 20 and 12 degrees, with voxels of SPACING_MM."""
    a, b = np.deg2rad(20), np.deg2rad(12)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(SPACING_MM)
    affine[:3, 3] = (-20.5, 30.25, -11.0)
    return affine


def stored(axcodes: str, folder: Path) -> tuple[Path, NDArray]:
    """Writes the image along `axcodes`; returns its path and the label along the same axes."""
    transform = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes)
    )
    label = nib.Nifti1Image(truth(), oblique()).as_reoriented(transform)
    values = np.asarray(label.dataobj)
    image = nib.Nifti1Image(np.stack([values == v for v in VALUES], axis=-1).astype(np.float32), label.affine)
    image.set_qform(label.affine, 1)
    image.set_sform(label.affine, 2)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "scan.nii.gz")
    return folder / "scan.nii.gz", values


def segmented(path: Path, spacing_mm: tuple[float, float, float]) -> Path:
    """From file to file, as `predict` does it."""
    prediction = Predictor(make_plan(spacing_mm), Knowing()).predict(read_image([path]))
    result = path.with_name("result.nii.gz")
    write_label(result, prediction.labels)
    return result


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_permuted_and_flipped_axes_give_the_label_back_exactly(axcodes: str, tmp_path: Path) -> None:
    path, label = stored(axcodes, tmp_path)
    image, result = nib.load(path), nib.load(segmented(path, SPACING_MM))
    assert "".join(nib.aff2axcodes(image.affine)) == axcodes
    assert np.array_equal(np.asarray(result.dataobj), label)
    assert result.get_data_dtype() == np.uint8
    assert np.array_equal(result.affine, image.affine)
    for form in ("qform", "sform"):
        before, after = getattr(image, f"get_{form}")(coded=True), getattr(result, f"get_{form}")(coded=True)
        assert np.array_equal(before[0], after[0])
        assert before[1] == after[1]


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
@pytest.mark.parametrize(("spacing_mm", "least_dice"), [((1.0, 1.0, 1.2), 0.95), ((1.6, 1.6, 2.4), 0.9)])
def test_resampling_errs_within_one_voxel_of_a_border(
    axcodes: str, spacing_mm: tuple[float, float, float], least_dice: float, tmp_path: Path
) -> None:
    path, label = stored(axcodes, tmp_path)
    result = read_label(segmented(path, spacing_mm)).array
    inner = ndimage.grey_erosion(label, (3, 3, 3)) == ndimage.grey_dilation(label, (3, 3, 3))
    assert np.array_equal(result[inner], label[inner])
    for value in VALUES:
        dice = 2 * ((result == value) & (label == value)).sum() / ((result == value).sum() + (label == value).sum())
        assert dice >= least_dice
