"""Scoring must work where no deep-learning library is installed, and start fast."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import pipeline.evaluation.evaluate_pairs, pipeline.evaluation.compare
heavy = {"torch", "monai", "matplotlib", "pandas", "scipy.stats"} & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
"""


def test_scoring_imports_neither_torch_nor_monai() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
