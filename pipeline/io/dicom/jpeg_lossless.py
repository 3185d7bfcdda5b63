"""Lossless JPEG (ITU-T T.81, process 14), in which many scanners' archives keep DICOM: no small library reads 16 bits.

A symbol's length is known from the bits it begins with. So lengths are looked up for every bit position at once, and
only the way from one symbol to the next is walked step by step.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

SYNTAXES = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
"""The transfer syntaxes of DICOM: any predictor, and the first one."""
_LOSSLESS_FRAME, _TABLES, _SCAN, _RESTARTS, _BEGIN = 0xC3, 0xC4, 0xDA, 0xDD, 0xD8
_LARGEST_DIFFERENCE = 16
"""The one category without further bits: its difference is 32768."""


def decode_jpeg_lossless(data: bytes, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """The pixels of a picture of `shape` (rows, columns) with one component.

    A ValueError where it is damaged or says that it is of another size, which is asked before memory is taken.
    NotImplementedError for what is no lossless JPEG, has several components, restarts, or another predictor than the
    pixel to the left.
    """
    table, precision, rows, columns, place = np.zeros((2, 2**16), np.uint8), 0, 0, 0, 0
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise ValueError("a marker is missing")
        marker = data[place + 1]
        if marker in {_BEGIN, 0xFF}:
            place += 2 if marker == _BEGIN else 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        content = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == _LOSSLESS_FRAME:
            precision, rows, columns, components = struct.unpack_from(">BHHB", content)
            _refuse(components != 1, "colours")
            if (rows, columns) != shape:
                raise ValueError("the picture has another size than it should")
        elif marker == _TABLES:
            table = _symbols(content)
        elif marker == _SCAN:
            predictor, shift = content[-3], content[-1] & 15
            _refuse(predictor != 1, "another predictor")
            differences = _differences(data[place:], table, rows * columns).reshape(rows, columns)
            return _summed(differences, 1 << (precision - shift - 1)) << np.uint16(shift)
        _refuse(marker == _RESTARTS or (0xC0 <= marker <= 0xCF and marker not in {_LOSSLESS_FRAME, _TABLES}), "a kind")
    raise ValueError("it holds no picture")


def _refuse(wrong: bool, what: str) -> None:
    if wrong:
        raise NotImplementedError(f"{what} of JPEG that is not read")


def _symbols(content: bytes) -> NDArray[np.uint8]:
    """For each 16 bits: the category of the difference that they begin with, and the length of its code (0: none)."""
    table, code, place = np.zeros((2, 2**16), np.uint8), 0, 17
    for length, count in enumerate(content[1:17], 1):
        for category in content[place : place + count]:
            table[:, code << (16 - length) : (code + 1) << (16 - length)] = [[category], [length]]
            code += 1
        place += count
        code <<= 1
    if len(content) != place or table[0].max() > _LARGEST_DIFFERENCE:
        raise NotImplementedError("several tables of JPEG in one, which are not read")
    return table


def _differences(packed: bytes, table: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """The first `count` differences of a scan: each a code for the number of bits that follow, then those bits."""
    body = np.frombuffer(packed.replace(b"\xff\x00", b"\xff") + bytes(8), np.uint8).astype(np.uint64)
    five = np.zeros(len(body) - 4, np.uint64)
    for i in range(5):
        five |= body[i : len(body) - 4 + i] << np.uint64(8 * (4 - i))
    # the 32 bits that begin at each bit: enough for the longest code and what follows it
    windows = ((five[:, None] >> np.arange(8, 0, -1, dtype=np.uint64)) & np.uint64(2**32 - 1)).ravel()
    category, length = table[:, windows >> np.uint64(16)]
    further = np.where(category == _LARGEST_DIFFERENCE, 0, category)
    following = (np.arange(len(windows)) + length + further).tolist()
    at, starts = 0, []
    for _ in range(count):
        starts.append(at)
        if at >= len(following) or following[at] == at:
            raise ValueError("it ends too early")
        at = following[at]
    if at >= len(following) - 8 or (length[starts] == 0).any():
        raise ValueError("it ends too early")
    bits = further[starts].astype(np.int64)
    held = (windows[starts].astype(np.int64) >> (32 - length[starts] - bits)) & ((1 << bits) - 1)
    signed = np.where(held < (1 << bits) >> 1, held - (1 << bits) + 1, held)
    return np.where(category[starts] == _LARGEST_DIFFERENCE, 32768, signed)


def _summed(differences: NDArray[np.int64], first: int) -> NDArray[np.uint16]:
    """Pixels, each the one to its left and a difference, modulo 2¹⁶; the first column continues downwards."""
    differences[0, 0] += first
    differences[:, 0] = np.cumsum(differences[:, 0])
    return np.cumsum(differences, axis=1).astype(np.uint16)
