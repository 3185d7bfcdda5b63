"""Overlays: an image on three planes with the contours of reference and prediction, as crisp SVG."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.preprocessing.plan import ChannelPlan
from pipeline.reporting.charts.svg_axes import coordinate
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.slices import PLANES, Slice, Slices

MOST_PIXELS = 320
_FEWEST_PIXELS = 64
BUDGET_PIXELS = 3_500_000
"""A grey pixel of noise takes a byte, and a third more in base64."""
_CONTOUR_BYTES, ALL_CONTOUR_BYTES = 100_000, 2_000_000
_COARSEST = 16
_WIDER = 0.15
_BARS_MM = (100, 50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class Window:
    """The intensities that become black and white."""

    lower: float
    upper: float

    @classmethod
    def between(cls, lower: float, upper: float) -> Window:
        """A window that is not empty, even for a flat image."""
        return cls(lower, max(upper, lower + 1e-6))

    @classmethod
    def planned(cls, channel: ChannelPlan) -> Window | None:
        """A little wider than a planned CT window, so that all cases look alike; None: each image has its own."""
        if channel.scheme != "ct" or channel.lower is None or channel.upper is None:
            return None
        margin = _WIDER * (channel.upper - channel.lower)
        return cls(channel.lower - margin, channel.upper + margin)

    def to_grey(self, plane: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Intensities as 0 to 255; what is no number becomes black."""
        share = (np.nan_to_num(plane, nan=self.lower) - self.lower) / (self.upper - self.lower)
        return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


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


def png(grey: NDArray[np.uint8]) -> bytes:
    """An 8-bit greyscale PNG of rows × columns (PNG specification, third edition: IHDR, one IDAT, IEND)."""
    height, width = grey.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter; 2 is "up", the difference
    rows[:, 0] = 2
    rows[:, 1:] = np.diff(grey, axis=0, prepend=np.zeros((1, width), np.uint8))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def contour_path(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> str:
    """The outline of a mask (rows, columns) as an SVG path in mm; voxel (0, 0) covers the corner at the origin."""
    from contourpy import contour_generator

    if not mask.any():
        return ""
    lines = contour_generator(z=np.pad(mask, 1).astype(float)).lines(0.5)
    pieces = []
    for line in lines:
        xy = (np.asarray(line) - 0.5) * (spacing_mm[1], spacing_mm[0])
        pieces.append("M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in xy[:-1]) + "Z")
    return "".join(pieces)


def _contours(one: Slice, structures: Mapping[str, tuple[int, ...]], most_bytes: int) -> list[tuple[str, str, str]]:
    """Structure, role and path of each contour. Where all would take more than `most_bytes` (a prediction of speckles
    is a megabyte of corners), the longest are drawn around blocks of 2, 4, ... voxels that hold some of it."""
    masks = {
        (name, role): (np.isin(labels, values), 1)
        for role, labels in (("reference", one.reference), ("prediction", one.prediction))
        for name, values in structures.items()
    }
    paths = {key: contour_path(mask, one.pixel_mm) for key, (mask, _) in masks.items()}
    while sum(map(len, paths.values())) > most_bytes:
        longest = max(paths, key=lambda key: len(paths[key]))
        mask, step = masks[longest]
        if step >= _COARSEST:
            break
        masks[longest] = mask, step = _any_of_four(mask), 2 * step
        paths[longest] = contour_path(mask, (step * one.pixel_mm[0], step * one.pixel_mm[1]))
    return [(name, role, path) for (name, role), path in paths.items() if path]


def _any_of_four(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = mask.shape
    padded = np.pad(mask, ((0, rows % 2), (0, columns % 2)))
    return padded[::2, ::2] | padded[1::2, ::2] | padded[::2, 1::2] | padded[1::2, 1::2]


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
        for name, role, path in _contours(one, structures, shown.contour_bytes)
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
