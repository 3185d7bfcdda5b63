"""YAML text without the folders of one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def portable_yaml(text: str) -> str:
    """A configuration without the folders of the machine: of an absolute path only the name stays."""
    return yaml.safe_dump(_without_folders(yaml.safe_load(text) or {}), sort_keys=False, allow_unicode=True, width=110)


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
