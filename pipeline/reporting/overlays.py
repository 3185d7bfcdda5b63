"""Overlays: an image on three planes with the contours of reference and prediction, as crisp SVG."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.geometry import Spacing
from pipeline.data.plan import ChannelPlan
from pipeline.reporting.axes import coordinate
from pipeline.reporting.html import Html, join, tag

_MOST_PIXELS = 320
_MARGIN_MM, _LEAST_MM = 12.0, 70.0
_WIDER = 0.15
_BARS_MM = (100, 50, 20, 10, 5, 2, 1)

# Plane: (axis it is perpendicular to, letters at its left, right, top and bottom edges), radiological convention.
PLANES: dict[str, tuple[int, str]] = {"axial": (2, "RLAP"), "coronal": (1, "RLSI"), "sagittal": (0, "APSI")}


@dataclass(frozen=True)
class Scene:
    """One case in RAS+ orientation: image (X, Y, Z), label maps of original values, voxel size."""

    image: NDArray[np.float32]
    reference: NDArray[np.integer]
    prediction: NDArray[np.integer]
    spacing_mm: Spacing


@dataclass(frozen=True)
class Window:
    """The intensities that become black and white."""

    lower: float
    upper: float

    @classmethod
    def of(cls, image: NDArray[np.float32]) -> Window:
        """From the 0.5th to the 99.5th percentile of the finite voxels."""
        finite = image[np.isfinite(image)]
        lower, upper = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
        return cls(float(lower), float(max(upper, lower + 1e-6)))

    @classmethod
    def planned(cls, channel: ChannelPlan) -> Window | None:
        """A little wider than a planned CT window, so that all cases look alike; None: each image has its own."""
        if channel.scheme != "ct" or channel.lower is None or channel.upper is None:
            return None
        margin = _WIDER * (channel.upper - channel.lower)
        return cls(channel.lower - margin, channel.upper + margin)

    def to_grey(self, plane: NDArray[np.floating]) -> NDArray[np.uint8]:
        share = (np.nan_to_num(plane, nan=self.lower) - self.lower) / (self.upper - self.lower)
        return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def three_planes(scene: Scene, structures: Mapping[str, tuple[int, ...]], window: Window | None = None) -> Html:
    """Axial, coronal and sagittal pictures, each through the slice where prediction and reference differ most.

    The patient's right is on the left (radiological convention); cut to the structures with a margin.
    """
    box = _box(scene)
    window = window or Window.of(scene.image[box])
    return tag("div", [_plane(scene, box, plane, structures, window) for plane in PLANES], class_="planes")


def busiest_slice(reference: NDArray[np.integer], prediction: NDArray[np.integer], axis: int) -> int:
    """The index along `axis` with most differing voxels, else with most labelled ones, else the middle."""
    others = tuple(a for a in range(3) if a != axis)
    for counts in ((reference != prediction).sum(axis=others), (reference > 0).sum(axis=others)):
        if counts.any():
            return int(counts.argmax())
    return reference.shape[axis] // 2


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


def _box(scene: Scene) -> tuple[slice, slice, slice]:
    """The labelled box with a margin, at least 70 mm wide where the image is."""
    labelled = (scene.reference > 0) | (scene.prediction > 0)
    slices = []
    for axis, (n, spacing) in enumerate(zip(scene.image.shape, scene.spacing_mm, strict=True)):
        hit = np.flatnonzero(labelled.any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = (int(hit[0]), int(hit[-1])) if len(hit) else (0, n - 1)
        least = (_LEAST_MM / spacing - (last - first + 1)) / 2
        margin = int(np.ceil(max(_MARGIN_MM / spacing, least)))
        slices.append(slice(max(first - margin, 0), min(last + 1 + margin, n)))
    return slices[0], slices[1], slices[2]


def _plane(
    scene: Scene,
    box: tuple[slice, slice, slice],
    plane: str,
    structures: Mapping[str, tuple[int, ...]],
    window: Window,
) -> Html:
    axis, letters = PLANES[plane]
    index = busiest_slice(scene.reference, scene.prediction, axis)
    cut: list[slice | int] = list(box)
    cut[axis] = index
    image, reference, prediction = (
        _as_seen(volume[tuple(cut)]) for volume in (scene.image, scene.reference, scene.prediction)
    )
    columns_mm, rows_mm = (scene.spacing_mm[a] for a in range(3) if a != axis)
    width, height = image.shape[1] * columns_mm, image.shape[0] * rows_mm
    data = base64.b64encode(png(window.to_grey(_thinned(image)))).decode()
    contours = [
        tag("path", tag("title", f"{name}, {role}"), class_=role, d=path)
        for role, labels in (("reference", reference), ("prediction", prediction))
        for name, values in structures.items()
        if (path := contour_path(np.isin(labels, values), (rows_mm, columns_mm)))
    ]
    picture = tag(
        "svg",
        tag(
            "image",
            href=f"data:image/png;base64,{data}",
            width=coordinate(width),
            height=coordinate(height),
            preserveAspectRatio="none",
        ),
        contours,
        _letters(letters, width, height),
        _scale_bar(width, height),
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        role="img",
        aria_label=f"{plane} slice {index} with contours of reference and prediction",
    )
    return tag("figure", picture, tag("figcaption", f"{plane}, slice {index}"), class_="plane")


def _as_seen(plane: NDArray) -> NDArray:
    """A RAS+ plane as rows and columns: first axis (right or anterior) runs leftwards, second one upwards."""
    return plane.T[::-1, ::-1]


def _thinned(plane: NDArray[np.floating]) -> NDArray[np.floating]:
    """At most 320 pixels a side, by means over square blocks."""
    factor = -(-max(plane.shape) // _MOST_PIXELS)
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
