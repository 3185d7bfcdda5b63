"""Writes the NIfTI scans of one folder as another kind into another: `python docker/as_kind.py FROM TO .mha`."""

from __future__ import annotations

import sys
from pathlib import Path

import SimpleITK as sitk


def main(source: Path, target: Path, ending: str) -> None:
    """Same voxels and grid, another kind of file."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # that what only NIfTI has is not written
    for path in sorted(source.glob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(target / path.name.replace(".nii.gz", ending)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
