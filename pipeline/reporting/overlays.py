"""Overlays: an image on three planes with the contours of reference and prediction, as crisp SVG."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.charts.svg_axes import coordinate
from pipeline.reporting.contours import structure_contours
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.intensity_window import Window
from pipeline.reporting.png_image import png
from pipeline.reporting.slices import PLANES, Slice, Slices

MOST_PIXELS = 320
_FEWEST_PIXELS = 64
BUDGET_PIXELS = 3_500_000
"""A grey pixel of noise takes a byte, and a third more in base64."""
_CONTOUR_BYTES, ALL_CONTOUR_BYTES = 100_000, 2_000_000
_BARS_MM = (100, 50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class OverlaySettings:
    """Which channels a report's pictures hold, the one in which structures are seen best first.

    windows: of each shown channel the planned one; None: each image has its own. pixels: of a picture's longer side.
    contour_bytes: of all contours of a picture; beyond it they are drawn on coarser pixels.
    """

    channels: tuple[int, ...] = (0,)
    windows: tuple[Window | None, ...] = (None,)
    pixels: int = MOST_PIXELS
    contour_bytes: int = _CONTOUR_BYTES


def pixels_for(pictures: int) -> int:
    """The longest side in pixels with which so many pictures together stay below about 5 MB of page."""
    return max(min(MOST_PIXELS, int(sqrt(BUDGET_PIXELS / max(pictures, 1)))), _FEWEST_PIXELS)


def contour_bytes_for(pictures: int) -> int:
    """What the contours of each of so many pictures may take, so that all of them stay below about 2 MB of page."""
    return min(_CONTOUR_BYTES, ALL_CONTOUR_BYTES // max(pictures, 1))


def three_planes(
    slices: Slices, structures: Mapping[str, tuple[int, ...]], shown: OverlaySettings | None = None
) -> Html:
    """Axial, coronal and sagittal pictures with the contours of reference and prediction.

    The patient's right is on the left (radiological convention). Each shown channel is a picture under the contours;
    the page shows the first one unless its reader chooses another.
    """
    shown = shown or OverlaySettings()
    windows = [
        window or Window.between(*slices.ranges[channel])
        for channel, window in zip(shown.channels, shown.windows, strict=True)
    ]
    return tag("div", [_plane(one, structures, shown, windows) for one in slices.planes], class_="planes")


def _plane(
    one: Slice, structures: Mapping[str, tuple[int, ...]], shown: OverlaySettings, windows: Sequence[Window]
) -> Html:
    rows_mm, columns_mm = one.pixel_mm
    height, width = one.reference.shape[0] * rows_mm, one.reference.shape[1] * columns_mm
    images = [
        _image(window.to_grey(_thinned(one.image[channel], shown.pixels)), place, width, height)
        for place, (channel, window) in enumerate(zip(shown.channels, windows, strict=True))
    ]
    contours = [
        tag("path", tag("title", f"{name}, {role}"), class_=role, d=path)
        for name, role, path in structure_contours(one, structures, shown.contour_bytes)
    ]
    picture = tag(
        "svg",
        images,
        contours,
        _letters(PLANES[one.plane][1], width, height),
        _scale_bar(width, height),
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        role="img",
        aria_label=f"{one.plane} slice {one.index} with contours of reference and prediction",
    )
    return tag("figure", picture, tag("figcaption", f"{one.plane}, slice {one.index}"), class_="plane")


def _image(grey: NDArray[np.uint8], place: int, width: float, height: float) -> Html:
    data = base64.b64encode(png(grey)).decode()
    size = {"width": coordinate(width), "height": coordinate(height), "preserveAspectRatio": "none"}
    return tag("image", href=f"data:image/png;base64,{data}", class_=f"k{place}", **size)


def _thinned(plane: NDArray[np.floating], pixels: int) -> NDArray[np.floating]:
    """At most so many pixels a side, by means over square blocks."""
    factor = -(-max(plane.shape) // pixels)
    if factor == 1:
        return plane
    padded = np.pad(plane, [(0, -n % factor) for n in plane.shape], mode="edge")
    rows, columns = (n // factor for n in padded.shape)
    return padded.reshape(rows, factor, columns, factor).mean(axis=(1, 3))


def _letters(letters: str, width: float, height: float) -> Html:
    """Directions at the edges; text is sized by the picture, since drawing units are millimetres."""
    size = coordinate(max(width, height) / 17)
    inset = max(width, height) / 40
    places = (
        (inset, height / 2, "start"),
        (width - inset, height / 2, "end"),
        (width / 2, inset * 2.4, "middle"),
        (width / 2, height - inset, "middle"),
    )
    return join(
        tag("text", letter, class_="letter", x=coordinate(x), y=coordinate(y), text_anchor=anchor, font_size=size)
        for letter, (x, y, anchor) in zip(letters, places, strict=True)
    )


def _scale_bar(width: float, height: float) -> Html:
    length = next((bar for bar in _BARS_MM if bar <= width / 3), 1)
    inset = max(width, height) / 40
    y, size = height - inset, coordinate(max(width, height) / 24)
    bar = tag(
        "line", class_="bar", x1=coordinate(inset), x2=coordinate(inset + length), y1=coordinate(y), y2=coordinate(y)
    )
    words = tag(
        "text", f"{length} mm", class_="letter", x=coordinate(inset), y=coordinate(y - inset / 1.5), font_size=size
    )
    return join([bar, words])
