"""What reading a configuration, and planning a run of stages, may load: a command that does nothing starts at once."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("pipeline.config", ("torch", "numpy", "scipy", "monai", "nibabel", "SimpleITK")),
        ("pipeline.runner", ("torch", "scipy", "monai", "nibabel", "SimpleITK", "matplotlib")),
    ],
)
def test_importing_loads_nothing_heavy(module: str, heavy: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
