"""The fixtures that older code wrote, copied to where a test may write."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

WRITTEN = Path(__file__).with_name("d7fef4c")
MADE_AT_NS = 1767225600 * 10**9
"""Date of the scans, which the record of stage load holds."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the fixtures, with what the record of stage load holds of their place: the manifest's path, dates."""
    folder = tmp_path / "old"
    shutil.copytree(WRITTEN, folder)
    for scan in (folder / "phantoms").rglob("*.nii.gz"):
        os.utime(scan, ns=(MADE_AT_NS, MADE_AT_NS))
    for run in ("run", "killed"):
        record = folder / run / "load" / "stage.json"
        text = record.read_text(encoding="utf-8")
        assert text.count('"phantoms/manifest.json"') == 1
        record.write_text(
            text.replace('"phantoms/manifest.json"', f'"{folder / "phantoms" / "manifest.json"}"'), encoding="utf-8"
        )
    return folder
