"""The runner: which stages there are, in which order, and one run of them in a run folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pipeline.base.errors import EXIT_DONE, EXIT_SOME_CASES, ConfigError
from pipeline.base.execute_stage import execute
from pipeline.base.files import write_text
from pipeline.base.machine import Runtime
from pipeline.base.run_folder import lock_run_folder, log_to_run_folder
from pipeline.base.stage import Stage
from pipeline.base.stage_cache import changed_since, request_of, staleness_reason
from pipeline.base.stage_outputs import failed_cases, is_finished
from pipeline.base.strict_model import StrictModel
from pipeline.config import PipelineConfig, to_yaml, value_at
from pipeline.stages.stage_table import STAGES, ancestors

log = logging.getLogger(__name__)

_SHOWN = 5
"""Changes that a refusal names."""


def run(
    config: PipelineConfig,
    folder: Path,
    first: str | None = None,
    only: str | None = None,
    force: bool = False,
) -> int:
    """Brings a run folder up to date with `config` and returns the exit code (0, or 4 where cases failed).

    first: start at this stage; those before it must be finished. only: this one stage. force: do again what is up to
    date. Raises ConfigError where the folder is in use or an earlier stage is missing, and what stages raise.
    """
    chosen = _chosen(first, only)
    if int(os.environ.get("RANK", "0")) > 0:
        return _train_as_nonzero_rank(config, folder, chosen, force)
    with lock_run_folder(folder), log_to_run_folder(folder):
        log.info("run %s in %s", config.name, folder)
        write_text(folder / "config.yaml", to_yaml(config))
        _require_earlier(config, folder, chosen)
        runtime = Runtime(config.device, config.executor.name, config.executor.workers)
        for stage in chosen:
            for later in chosen:
                if later.check is not None and stage.name in later.check_before:
                    later.check(config, folder)
            inputs = {name: folder / name for name in stage.inputs}
            execute(
                stage,
                settings_for(stage, config),
                inputs,
                folder / stage.name,
                runtime,
                force,
                to_yaml(config),
            )
        return _exit_code(folder, chosen)


def _train_as_nonzero_rank(config: PipelineConfig, folder: Path, chosen: list[Stage], force: bool) -> int:
    """What torchrun's processes other than the first do: train, while the first one keeps folder and records."""
    if [stage.name for stage in chosen] != ["train"]:
        raise ConfigError(
            "torchrun started several processes, which only training can use; run the stages before it first, then: "
            "torchrun --nproc-per-node N -m pipeline train CONFIG"
        )
    logging.getLogger("pipeline").setLevel(logging.WARNING)
    stage, settings = chosen[0], settings_for(chosen[0], config)
    inputs = {name: folder / name for name in stage.inputs}
    if force or staleness_reason(stage, request_of(stage, settings, inputs), folder / stage.name) is not None:
        runtime = Runtime(config.device, config.executor.name, config.executor.workers)
        stage.run(settings, inputs, folder / f"{stage.name}.partial", runtime)
    return EXIT_DONE


def settings_for(stage: Stage, config: PipelineConfig) -> StrictModel:
    """The part of the configuration that a stage reads, as its own value."""
    return stage.config(**{field: value_at(config, key_path) for field, key_path in stage.reads.items()})


def _chosen(first: str | None, only: str | None) -> list[Stage]:
    if only is not None:
        return [STAGES[only]]
    names = list(STAGES)
    return [STAGES[name] for name in names[names.index(first) if first else 0 :]]


def _require_earlier(config: PipelineConfig, folder: Path, chosen: list[Stage]) -> None:
    """Stages that this run needs and will not run must be finished: with this very configuration, data and inputs."""
    running = {stage.name for stage in chosen}
    for name in dict.fromkeys(name for stage in chosen for name in ancestors(stage) if name not in running):
        again = f"`segpipe {name} CONFIG` brings it up to date, `segpipe run CONFIG` everything"
        if not is_finished(folder / name):
            raise ConfigError(f"stage {name} is not finished in {folder}; {again}")
        if changed := changed_since(STAGES[name], settings_for(STAGES[name], config), folder):
            shown = ", ".join(changed[:_SHOWN]) + (f" and {more} more" if (more := len(changed) - _SHOWN) > 0 else "")
            raise ConfigError(
                f"stage {name} in {folder} was made with another configuration or data (changed: {shown}); {again}"
            )


def _exit_code(folder: Path, chosen: list[Stage]) -> int:
    failed = {stage.name: failed_cases(folder / stage.name) for stage in chosen}
    for name, cases in failed.items():
        if cases:
            log.warning("stage %s: %d case(s) failed: %s", name, len(cases), ", ".join(cases))
    return EXIT_SOME_CASES if any(failed.values()) else EXIT_DONE
