"""Files that a stage wrote: their digests, and a later look at whether they are as they were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline.base.errors import SegpipeError
from pipeline.base.files import read_json
from pipeline.base.hashing import digest_of, sha256_of
from pipeline.base.stage import CONFIG, RECORD, TIMING, Stage

_HASH_ALWAYS_BELOW = 32 * 2**20


def output_digest(folder: Path) -> str:
    """One digest of all that a finished stage wrote."""
    return digest_of({name: entry["digest"] for name, entry in read_json(folder / RECORD)["outputs"].items()})


def is_finished(folder: Path) -> bool:
    """Whether `folder` holds a finished stage (whatever its request was)."""
    return (folder / RECORD).is_file()


def failed_cases(folder: Path) -> list[str]:
    """The cases that a finished stage could not do."""
    return list(read_json(folder / RECORD).get("failed_cases", []))


def hash_outputs(stage: Stage, folder: Path) -> dict[str, dict[str, str | None]]:
    """Each output of a stage with its digest, as `stage.json` records them."""
    return {name: {"digest": _digest(stage, folder, name)} for name in _files(folder)}


def altered_output(stage: Stage, folder: Path, outputs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first output that is gone or not what was recorded; large files of untouched size and date are believed."""
    stats = read_json(folder / TIMING).get("stat", {}) if (folder / TIMING).is_file() else {}
    for name, entry in outputs.items():
        path = folder / name
        if not path.is_file():
            return f"its output {name} is missing"
        if entry["digest"] is None or (path.stat().st_size > _HASH_ALWAYS_BELOW and file_stat(path) == stats.get(name)):
            continue
        try:
            found = _digest(stage, folder, name)
        except SegpipeError:
            found = ""
        if found != entry["digest"]:
            return f"its output {name} was altered"
    return None


def file_stat(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = (path.relative_to(folder).as_posix() for path in found)
    return sorted(name for name in names if name not in {RECORD, TIMING, CONFIG})


def _digest(stage: Stage, folder: Path, name: str) -> str | None:
    """The digest of one output without what must not enter it; None for a file that is left out altogether."""
    for pattern, keys in stage.not_hashed.items():
        if fnmatchcase(name, pattern):
            if not keys:
                return None
            content = read_json(folder / name)
            return digest_of({key: value for key, value in content.items() if key not in keys})
    return sha256_of(folder / name)


def check_outputs(stage: Stage, partial: Path) -> None:
    missing = [pattern for pattern in stage.outputs if not any(partial.glob(pattern))]
    if missing:
        raise AssertionError(f"stage {stage.name} promised {missing} and did not write them")
