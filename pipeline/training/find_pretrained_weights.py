"""Weights that training begins from: the file that a package or a path stands for."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import DataError


def find_pretrained_weights(path: Path) -> Path:
    """The weights file that a package or a path stands for; of a package with several folds, the first."""
    if path.is_file():
        return path
    found = sorted((path / "weights").glob("*.safetensors"))
    if not found:
        raise DataError(
            f"train.pretrained: {path} is neither a safetensors file nor a package with weights/*.safetensors"
        )
    return found[0]
