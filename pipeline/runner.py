"""The runner: which stages there are, in which order, and one run of them in a run folder."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pipeline.base.errors import EXIT_DONE, EXIT_SOME_CASES, ConfigError, SegpipeError
from pipeline.base.files import read_json, write_text
from pipeline.base.machine import Runtime
from pipeline.base.stage import (
    RECORD,
    Stage,
    cache_key_config,
    drop_ignored_keys,
    execute,
    failed_cases,
    is_finished,
    output_digest,
    request_of,
    staleness_reason,
)
from pipeline.base.strict_model import StrictModel
from pipeline.config.pipeline_config import PipelineConfig, to_yaml, value_at
from pipeline.dataset.cases_json import read_cases
from pipeline.dataset.folds import make_folds
from pipeline.preprocessing.plan import read_plan
from pipeline.stages import evaluate, infer, load, package, plan, report, sample, train

log = logging.getLogger(__name__)

_SHOWN = 5
"""Changes that a refusal names."""

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        load.STAGE,
        plan.STAGE,
        sample.STAGE,
        train.STAGE,
        infer.STAGE,
        evaluate.STAGE,
        report.STAGE,
        package.STAGE,
    )
}


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
    with _lock(folder), _log_file(folder):
        log.info("run %s in %s", config.name, folder)
        write_text(folder / "config.yaml", to_yaml(config))
        _require_earlier(config, folder, chosen)
        runtime = Runtime(config.device, config.executor.name, config.executor.workers)
        for stage in chosen:
            if stage.name == "sample" and train.STAGE in chosen:
                _check_training(config, folder)
            if stage.name in ("sample", "train") and infer.STAGE in chosen:
                infer.check_against_plan(config.infer, read_plan(folder / "plan"))
            if stage.name in ("plan", "train") and evaluate.STAGE in chosen:
                evaluate.check_against_data(config.evaluate, read_cases(folder / "load"))
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


def _check_training(config: PipelineConfig, folder: Path) -> None:
    """Raises what training would refuse, as soon as there is a plan: after all cases are prepared would be late."""
    cases, settings = read_cases(folder / "load").training(), config.train
    folds = make_folds(cases, config.sample.folds, config.sample.seed)
    if is_finished(folder / train.STAGE.name):  # where its curves went changes nothing any more
        settings = settings.model_copy(update={"mlflow": None})
    train.check_against_plan(settings, read_plan(folder / "plan"), len(folds["folds"]))


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
    for name in dict.fromkeys(name for stage in chosen for name in _ancestors(stage) if name not in running):
        again = f"`segpipe {name} CONFIG` brings it up to date, `segpipe run CONFIG` everything"
        if not is_finished(folder / name):
            raise ConfigError(f"stage {name} is not finished in {folder}; {again}")
        if changed := _changed_since(config, folder, STAGES[name]):
            shown = ", ".join(changed[:_SHOWN]) + (f" and {more} more" if (more := len(changed) - _SHOWN) > 0 else "")
            raise ConfigError(
                f"stage {name} in {folder} was made with another configuration or data (changed: {shown}); {again}"
            )


def _changed_since(config: PipelineConfig, folder: Path, stage: Stage) -> list[str]:
    """What a finished stage was made from and is another now, in words: keys, files, results of earlier stages."""
    settings, request = settings_for(stage, config), read_json(folder / stage.name / RECORD)["request"]
    if isinstance(settings, load.LoadReads):  # whose paths may be those of another machine
        return load.changed_since(settings, folder / stage.name)
    recorded, wanted = drop_ignored_keys(stage, request["config"]), cache_key_config(stage, settings)
    keys = sorted(key for key in {*recorded, *wanted} if recorded.get(key) != wanted.get(key))
    inputs = [name for name in stage.inputs if request["inputs"].get(name) != output_digest(folder / name)]
    return [*keys, *(f"what {name} wrote" for name in inputs)]


def _ancestors(stage: Stage) -> list[str]:
    names: list[str] = []
    for name in stage.inputs:
        names += [*_ancestors(STAGES[name]), name]
    return names


def _exit_code(folder: Path, chosen: list[Stage]) -> int:
    failed = {stage.name: failed_cases(folder / stage.name) for stage in chosen}
    for name, cases in failed.items():
        if cases:
            log.warning("stage %s: %d case(s) failed: %s", name, len(cases), ", ".join(cases))
    return EXIT_SOME_CASES if any(failed.values()) else EXIT_DONE


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Holds the run folder's lock, which the kernel gives back however this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("a")
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written: {error.strerror}; choose another with --out"
        ) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another process works in {folder}; wait for it, or give this run a folder with --out"
            ) from None
        yield


@contextlib.contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Everything that is logged goes to `log.txt` too."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    package_log = logging.getLogger("pipeline")
    package_log.addHandler(handler)
    _write(folder / "log.txt", f"\n{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} $ {' '.join(sys.argv)}")
    try:
        yield
    except SegpipeError as error:
        _write(folder / "log.txt", str(error))
        raise
    finally:
        package_log.removeHandler(handler)
        handler.close()


def _write(log_file: Path, line: str) -> None:
    with log_file.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
