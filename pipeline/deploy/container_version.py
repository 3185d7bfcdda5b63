"""Version of the container: its release, and what it was built from."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline import __version__


def version_text() -> str:
    """The version, and what the image was built from where it says so."""
    info = Path(sys.prefix) / "BUILD.info"
    return info.read_text(encoding="utf-8") if info.is_file() else f"segpipe: {__version__}\n"
