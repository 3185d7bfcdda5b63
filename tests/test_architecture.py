"""The page on architecture says what the code does: the picture of imports, and every file that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"


def test_the_picture_of_imports_is_the_codes() -> None:
    result = subprocess.run([sys.executable, "docs/draw_imports.py", "--check"], cwd=ROOT, check=False)
    assert result.returncode == 0, "draw it again: python docs/draw_imports.py"


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]*(?:\.[a-z]+)?)`", PAGE.read_text(encoding="utf-8")))
    written_by_runs = {"predictions/"}
    missing = {
        name
        for name in named - written_by_runs
        if not any((root / name).exists() for root in (ROOT, ROOT / "pipeline", ROOT / "pipeline" / "layouts"))
        and not list((ROOT / "pipeline").rglob(name.rstrip("/")))
    }
    assert len(named) > 50 and not missing
