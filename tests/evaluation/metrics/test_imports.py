"""Scoring works on a machine without torch and MONAI, and starts fast: whatever other libraries would import.

That our own modules import neither is a contract of import-linter; it sees no import that another library makes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

SCORE_WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {"torch", "monai"} else PathFinder.find_spec(name, path, target)

sys.meta_path = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
import pipeline.evaluation.compare
from pipeline.base.machine import Runtime
from pipeline.evaluation.score_folders import score

pred, ref, out = map(Path, sys.argv[1:])
summary = score(pred, ref, "cube=1", out, runtime=Runtime(executor="serial"))
assert summary["structures"]["cube"]["dice"]["mean"] == 0.8, summary
heavy = {"torch", "monai", "matplotlib", "pandas", "scipy.stats"} & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
"""


def test_two_label_maps_are_scored_without_torch_and_without_slow_imports(tmp_path: Path) -> None:
    """Cubes of 4 x 4 x 4 and 4 x 4 x 6 voxels, one in the other: every metric, intervals and the table."""
    for name, depth in (("pred", 4), ("ref", 6)):
        label = np.zeros((10, 10, 10), np.uint8)
        label[2:6, 2:6, 2 : 2 + depth] = 1
        (tmp_path / name).mkdir()
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / name / "a.nii.gz")
    folders = [str(tmp_path / name) for name in ("pred", "ref", "out")]
    command = [sys.executable, "-c", SCORE_WITHOUT_TORCH, *folders]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "summary.json").is_file()
