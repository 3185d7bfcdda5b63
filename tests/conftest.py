"""Fixtures for all tests; those that need real scans take them from SEGPIPE_DATA and skip where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def segpipe_data() -> Path:
    """The folder of real scans."""
    folder = Path(os.environ.get("SEGPIPE_DATA", "../shared/data"))
    folder = folder if folder.is_absolute() else REPOSITORY / folder
    if not folder.is_dir():
        pytest.skip(f"needs real scans: no folder {folder}; set SEGPIPE_DATA to it")
    return folder.resolve()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY
