"""The stage contract: one way for every stage to start, be skipped, be interrupted, finish and be traced.

A stage is a function from a configuration value and finished input folders to one output folder. `execute` works in
`<out>.partial`, checks the promised files, hashes them, writes `stage.json` last and renames: a folder without
`.partial` is finished. Seconds, memory and dates go to `timing.json` and enter no digest.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path
from typing import Any

from pipeline.base.errors import SegpipeError
from pipeline.base.files import digest_of, read_json, sha256_of, write_json
from pipeline.base.machine import Runtime, environment
from pipeline.base.process_memory import forget_peak, peak_memory_gib
from pipeline.base.strict_model import StrictModel

log = logging.getLogger(__name__)

RECORD, TIMING, CONFIG = "stage.json", "timing.json", "config.yaml"
_HASH_ALWAYS_BELOW = 32 * 2**20


@dataclass(frozen=True)
class StageResult:
    """What a stage has to say beside its files: the cases that failed (the run goes on and ends with 4)."""

    failed_cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """What a stage reads, writes and does.

    config: one frozen value of all it reads of the configuration. reads: field of `config` to key path.
    inputs: stages whose finished folders it reads. outputs: globs in its folder that must match something.
    not_hashed: glob (its * matches / too) to the top-level JSON keys that no digest may depend on (seconds, reasons);
    () means the whole file.
    resumes: an unfinished folder of an equal request is handed back to `run`, one of another request is kept as
    `<name>.partial.previous`. keep_previous: a superseded result stays beside the new one as `<name>.previous`.
    sources: digests of files outside the run folder. ignored_keys: key paths in `config` that change no result.
    """

    name: str
    version: int
    config: type[StrictModel]
    reads: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[[Any, Mapping[str, Path], Path, Runtime], StageResult | None]
    not_hashed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resumes: bool = False
    keep_previous: bool = False
    sources: Callable[[Any], Mapping[str, str]] | None = None
    ignored_keys: tuple[str, ...] = ()


def execute(
    stage: Stage,
    config: StrictModel,
    inputs: Mapping[str, Path],
    out: Path,
    runtime: Runtime,
    force: bool = False,
    resolved_config: str = "",
) -> bool:
    """Brings `out` up to date and returns whether anything was done.

    `resolved_config` is the whole configuration as YAML; it is saved beside the result as `config.yaml`. Raises what
    the stage raises; then `<out>.partial` holds its unfinished work and `out` is as it was before.
    """
    request = request_of(stage, config, inputs)
    partial, previous = out.with_name(out.name + ".partial"), out.with_name(out.name + ".previous")
    if not force and (reason := staleness_reason(stage, request, out)) is None:
        log.info("%-9s up to date", stage.name)
        return False
    if not force and staleness_reason(stage, request, partial) is None:  # killed between its record and the rename
        _move_into_place(stage, partial, out, previous)
        log.info("%-9s finished before the interruption", stage.name)
        return False
    if out.exists():
        log.info("%-9s runs again: %s", stage.name, "asked for with --force" if force else reason)
    _prepare(stage, partial, request, force)
    (partial / CONFIG).write_text(resolved_config, encoding="utf-8")

    started = time.monotonic()
    earlier = _seconds_so_far(partial)
    forget_peak()
    try:
        outcome = stage.run(config, inputs, partial, runtime) or StageResult()
    finally:
        if partial.exists():
            write_json(partial / TIMING, {"seconds": earlier + time.monotonic() - started})
    _check_outputs(stage, partial)
    (partial / "request.json").unlink()
    seconds = earlier + time.monotonic() - started
    outputs = {name: {"digest": _digest(stage, partial, name)} for name in _files(partial)}
    timing = {
        "seconds": seconds,
        "peak_memory_gib": peak_memory_gib(),
        "finished": datetime.now(UTC).isoformat(),
        **environment(),
    }
    timing["stat"] = {name: _stat(partial / name) for name in outputs}
    write_json(partial / TIMING, timing)
    record = {
        "request": request,
        "request_digest": digest_of(request),
        "outputs": outputs,
        "failed_cases": list(outcome.failed_cases),
    }
    write_json(partial / RECORD, record)
    _move_into_place(stage, partial, out, previous)
    log.info("%-9s done in %s", stage.name, duration(seconds))
    return True


def request_of(stage: Stage, config: StrictModel, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """What the stage is asked to do, as JSON: equal requests have equal results."""
    return {
        "stage": stage.name,
        "version": stage.version,
        "config": cache_key_config(stage, config),
        "inputs": {name: output_digest(inputs[name]) for name in stage.inputs},
        "sources": dict(stage.sources(config)) if stage.sources else {},
    }


def cache_key_config(stage: Stage, config: StrictModel) -> dict[str, Any]:
    """The configuration that a stage's result depends on, as JSON."""
    return drop_ignored_keys(stage, config.model_dump(mode="json"))


def drop_ignored_keys(stage: Stage, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, as a record may hold it, without the keys that change no result."""
    values = deepcopy(config)
    for path in stage.ignored_keys:
        *above, key = path.split(".")
        reduce(lambda inner, step: inner.get(step, {}), above, values).pop(key, None)
    return values


def output_digest(folder: Path) -> str:
    """One digest of all that a finished stage wrote."""
    return digest_of({name: entry["digest"] for name, entry in read_json(folder / RECORD)["outputs"].items()})


def failed_cases(folder: Path) -> list[str]:
    """The cases that a finished stage could not do."""
    return list(read_json(folder / RECORD).get("failed_cases", []))


def is_finished(folder: Path) -> bool:
    """Whether `folder` holds a finished stage (whatever its request was)."""
    return (folder / RECORD).is_file()


def staleness_reason(stage: Stage, request: Mapping[str, Any], folder: Path) -> str | None:
    """Why `folder` does not answer `request`, in words; None where it does."""
    if not is_finished(folder):
        return "it is not finished"
    try:
        record = read_json(folder / RECORD)
        recorded, outputs = record["request"], record["outputs"]
    except (SegpipeError, KeyError, TypeError):
        return f"its {RECORD} cannot be read"
    recorded = {**recorded, "config": drop_ignored_keys(stage, recorded["config"])}
    if recorded != request:
        return "changed: " + ", ".join(_differences(recorded, dict(request)))
    return _altered_output(stage, folder, outputs)


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _prepare(stage: Stage, partial: Path, request: Mapping[str, Any], force: bool) -> None:
    asked = partial / "request.json"
    if partial.exists():
        earlier = read_json(asked) if asked.is_file() else {}
        if "config" in earlier:
            earlier["config"] = drop_ignored_keys(stage, earlier["config"])
        if stage.resumes and stage.keep_previous and earlier and (force or earlier != request):
            kept = partial.with_name(f"{partial.name}.previous")
            shutil.rmtree(kept, ignore_errors=True)
            partial.rename(kept)
            why = ", ".join(_differences(earlier, dict(request))) or "asked for with --force"
            log.info("%-9s begins anew (%s); the unfinished work is kept in %s", stage.name, why, kept.name)
        elif earlier != request or force or not stage.resumes:
            shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    for half_written in [path for path in partial.rglob(".*") if path.is_file()]:  # by a process that was killed
        half_written.unlink()
    (partial / RECORD).unlink(missing_ok=True)
    if not asked.is_file():
        write_json(asked, request)


def _seconds_so_far(partial: Path) -> float:
    timing = partial / TIMING
    return float(read_json(timing).get("seconds", 0.0)) if timing.is_file() else 0.0


def _check_outputs(stage: Stage, partial: Path) -> None:
    missing = [pattern for pattern in stage.outputs if not any(partial.glob(pattern))]
    if missing:
        raise AssertionError(f"stage {stage.name} promised {missing} and did not write them")


def _move_into_place(stage: Stage, partial: Path, out: Path, previous: Path) -> None:
    if out.exists():
        if previous.exists():
            shutil.rmtree(previous)
        out.rename(previous)
    partial.rename(out)
    if previous.exists() and not stage.keep_previous:
        shutil.rmtree(previous)


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


def _stat(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _altered_output(stage: Stage, folder: Path, outputs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first output that is gone or not what was recorded; large files of untouched size and date are believed."""
    stats = read_json(folder / TIMING).get("stat", {}) if (folder / TIMING).is_file() else {}
    for name, entry in outputs.items():
        path = folder / name
        if not path.is_file():
            return f"its output {name} is missing"
        if entry["digest"] is None or (path.stat().st_size > _HASH_ALWAYS_BELOW and _stat(path) == stats.get(name)):
            continue
        try:
            found = _digest(stage, folder, name)
        except SegpipeError:
            found = ""
        if found != entry["digest"]:
            return f"its output {name} was altered"
    return None


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    """Key paths whose values differ between two JSON values, for people."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            place = key if at in {"", "config", "inputs", "sources"} else f"{at}.{key}"
            found += _differences(old.get(key), new.get(key), place) if old.get(key) != new.get(key) else []
        return found
    return [at]
