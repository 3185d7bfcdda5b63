"""Folders of the container: scans, model and results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError


@dataclass(frozen=True)
class ContainerPaths:
    """Where the container reads and writes."""

    input: Path
    output: Path
    model: Path


def container_paths(environment: Mapping[str, str]) -> ContainerPaths:
    """The folders that the environment names; the first variable that is set counts."""

    work = Path(environment.get("HOLOSCAN_WORKDIR") or "/")  # what MONAI Deploy's relative places are relative to

    def first(default: str, *names: str) -> Path:
        return work / next((environment[name] for name in names if environment.get(name)), default)

    return ContainerPaths(
        input=first("/input", "SEGPIPE_INPUT", "HOLOSCAN_INPUT_PATH", "MONAI_INPUTPATH"),
        output=first("/output", "SEGPIPE_OUTPUT", "HOLOSCAN_OUTPUT_PATH", "MONAI_OUTPUTPATH"),
        model=package_in(first("/opt/ml/model", "HOLOSCAN_MODEL_PATH", "MONAI_MODELPATH", "SEGPIPE_MODEL")),
    )


def package_in(folder: Path) -> Path:
    """The package in a model folder: the folder itself, or the one folder or zip in it (MONAI Deploy mounts such)."""
    if not folder.is_dir() or (folder / "package.json").is_file():
        return folder
    inner = [path for path in folder.iterdir() if path.suffix == ".zip" or (path / "package.json").is_file()]
    return inner[0] if len(inner) == 1 else folder


def check_writable(output: Path) -> None:
    """Says at once, before a model is loaded, that results could not be written (MONAI Deploy's old complaint)."""
    if not output.is_dir() or not os.access(output, os.W_OK):
        owner = f"user {os.getuid()}:{os.getgid()}"
        raise DataError(
            f"{output}: {owner} cannot write there; make the folder before, and run with --user $(id -u):$(id -g)"
        )
