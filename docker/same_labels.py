"""Compares the label maps of two folders: `python docker/same_labels.py EXPECTED FOUND SHARE`.

Ends with 1, and says where, unless both hold the same files on the same grids, with equal labels in at least SHARE
of the voxels of each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pipeline.io.image_file_names import image_ending
from pipeline.io.read_label import read_label


def main(expected: Path, found: Path, share: float) -> int:
    """The exit code."""
    names, others = _images_in(expected), _images_in(found)
    if not names or names != others:
        print(f"expected {names}, found {others}")
        return 1
    for name in names:
        a, b = read_label(expected / name), read_label(found / name)
        equal = float(np.mean(a.array == b.array)) if a.grid.shape == b.grid.shape else 0.0
        labels = np.unique(a.array).tolist()
        print(f"{name}: {equal:.4%} of voxels equal, labels {labels}")
        if equal < share or not a.grid.close_to(b.grid):
            return 1
    return 0


def _images_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if image_ending(path))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
