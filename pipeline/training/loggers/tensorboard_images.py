"""What TensorBoard shows of a validation: slices of a few cases with the outlines of reference and prediction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

ValidationImage = NDArray[np.uint8]
"""Rows × columns × RGB."""

_REFERENCE, _PREDICTION, _BOTH = (0, 200, 80), (255, 60, 60), (255, 220, 0)
_MOST = 3


class ValidationImages:
    """The last validation's pictures by case: of the first three cases, one axial slice each."""

    def __init__(self) -> None:
        self._of: dict[str, ValidationImage] = {}

    def take(self, case: str, image_CXYZ: torch.Tensor, label_XYZ: torch.Tensor, pred_XYZ: torch.Tensor) -> None:
        """Keeps a picture of the case, if there are not enough of others."""
        if case not in self._of and len(self._of) >= _MOST:
            return
        z = _fullest(label_XYZ)
        planes = (tensor[..., z].float().cpu().numpy() for tensor in (image_CXYZ[0], label_XYZ, pred_XYZ))
        self._of[case] = draw_image(*planes)

    def last(self) -> Mapping[str, ValidationImage]:
        """Case to picture."""
        return dict(self._of)


def draw_image(image_XY: NDArray, label_XY: NDArray, pred_XY: NDArray) -> ValidationImage:
    """A grey axial slice with outlines: green the reference, red the prediction, yellow where both run.

    Seen from the feet, the patient's right on the left and front on top. Label values are told apart, whatever they
    mean; 0 is background.
    """
    low, high = np.percentile(image_XY, [0.5, 99.5])
    grey = np.clip((image_XY - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)
    reference, prediction = outline(label_XY), outline(pred_XY)
    picture[reference], picture[prediction], picture[reference & prediction] = _REFERENCE, _PREDICTION, _BOTH
    return np.ascontiguousarray(picture.transpose(1, 0, 2)[::-1, ::-1])


def outline(labels_XY: NDArray) -> NDArray[np.bool_]:
    """Pixels that are not 0 and have a neighbour, over one of their four sides, of another value."""
    padded = np.pad(labels_XY, 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return (inner != 0) & np.logical_or.reduce([inner != side for side in around])


def _fullest(label_XYZ: torch.Tensor) -> int:
    """The slice with most of the label, else the middle one."""
    filled = (label_XYZ != 0).sum((0, 1))
    return int(filled.argmax()) if bool(filled.any()) else label_XYZ.shape[2] // 2
