"""The stage contract: one way for every stage to start, be skipped, be interrupted, finish and be traced.

A stage is a function from a configuration value and finished input folders to one output folder. `execute` works in
`<out>.partial`, checks the promised files, hashes them, writes `stage.json` last and renames: a folder without
`.partial` is finished. Seconds, memory and dates go to `timing.json` and enter no digest.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.base.files import read_json, write_json
from pipeline.base.hashing import digest_of
from pipeline.base.machine import Runtime, environment
from pipeline.base.process_memory import forget_peak, peak_memory_gib
from pipeline.base.stage import CONFIG, RECORD, TIMING, Stage, StageResult
from pipeline.base.stage_cache import differences, recorded_request, request_of, staleness_reason
from pipeline.base.stage_outputs import check_outputs, file_stat, hash_outputs
from pipeline.base.strict_model import StrictModel
from pipeline.base.terminal import format_duration

log = logging.getLogger(__name__)


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
    check_outputs(stage, partial)
    (partial / "request.json").unlink()
    seconds = earlier + time.monotonic() - started
    outputs = hash_outputs(stage, partial)
    timing = {
        "seconds": seconds,
        "peak_memory_gib": peak_memory_gib(),
        "finished": datetime.now(UTC).isoformat(),
        **environment(),
    }
    timing["stat"] = {name: file_stat(partial / name) for name in outputs}
    write_json(partial / TIMING, timing)
    record = {
        "request": request,
        "request_digest": digest_of(request),
        "outputs": outputs,
        "failed_cases": list(outcome.failed_cases),
    }
    write_json(partial / RECORD, record)
    _move_into_place(stage, partial, out, previous)
    log.info("%-9s done in %s", stage.name, format_duration(seconds))
    return True


def _prepare(stage: Stage, partial: Path, request: Mapping[str, Any], force: bool) -> None:
    asked = partial / "request.json"
    if partial.exists():
        earlier = read_json(asked) if asked.is_file() else {}
        if "config" in earlier:
            earlier = recorded_request(stage, earlier)
        if stage.resumes and stage.keep_previous and earlier and (force or earlier != request):
            kept = partial.with_name(f"{partial.name}.previous")
            shutil.rmtree(kept, ignore_errors=True)
            partial.rename(kept)
            why = ", ".join(differences(earlier, dict(request))) or "asked for with --force"
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


def _move_into_place(stage: Stage, partial: Path, out: Path, previous: Path) -> None:
    if out.exists():
        if previous.exists():
            shutil.rmtree(previous)
        out.rename(previous)
    partial.rename(out)
    if previous.exists() and not stage.keep_previous:
        shutil.rmtree(previous)
