"""Compares the label maps of two folders: `python docker/same_labels.py EXPECTED FOUND SHARE`.

Ends with 1, and says where, unless both hold the same files on the same grids, with equal labels in at least SHARE
of the voxels of each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np


def main(expected: Path, found: Path, share: float) -> int:
    """The exit code."""
    names = sorted(path.name for path in expected.glob("*.nii.gz"))
    others = sorted(path.name for path in found.glob("*.nii.gz"))
    if not names or names != others:
        print(f"expected {names}, found {others}")
        return 1
    for name in names:
        a, b = nib.load(expected / name), nib.load(found / name)
        equal = float(np.mean(np.asarray(a.dataobj) == np.asarray(b.dataobj))) if a.shape == b.shape else 0.0
        labels = np.unique(np.asarray(a.dataobj)).tolist()
        print(f"{name}: {equal:.4%} of voxels equal, labels {labels}")
        if equal < share or not np.allclose(a.affine, b.affine):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
