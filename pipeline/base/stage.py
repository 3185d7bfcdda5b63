"""Declaration of a stage: its inputs, its outputs, and the configuration that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.base.machine import Runtime
from pipeline.base.strict_model import StrictModel

RECORD, TIMING, CONFIG = "stage.json", "timing.json", "config.yaml"


@dataclass(frozen=True)
class StageResult:
    """What a stage has to say beside its files: the cases that failed (the run goes on and ends with 4)."""

    failed_cases: tuple[str, ...] = ()


StageFunction = Callable[[Any, Mapping[str, Path], Path, Runtime], StageResult | None]
"""Configuration, finished input folders by stage, output folder and runtime to the stage's result."""


@dataclass(frozen=True)
class Stage:
    """What a stage reads, writes and does.

    config: one frozen value of all it reads of the configuration. reads: field of `config` to key path.
    inputs: stages whose finished folders it reads. outputs: globs in its folder that must match something.
    not_hashed: glob (its * matches / too) to the top-level JSON keys that no digest may depend on (seconds, reasons);
    () means the whole file.
    resumes: an unfinished folder of an equal request is handed back to `run`, one of another request is kept as
    `<name>.partial.previous`. keep_previous: a superseded result stays beside the new one as `<name>.previous`.
    sources: digests of files outside the run folder. changed_since: what a finished folder was made from and is another
    now, if the recorded request alone does not tell that. ignored_keys: key paths in `config` that change no result.
    check: refuses early what this stage would refuse hours later, from the whole configuration and the run folder; it
    is called before the stages in `check_before`.
    """

    name: str
    version: int
    config: type[StrictModel]
    reads: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: StageFunction
    not_hashed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resumes: bool = False
    keep_previous: bool = False
    sources: Callable[[Any], Mapping[str, str]] | None = None
    changed_since: Callable[[Any, Path], list[str]] | None = None
    ignored_keys: tuple[str, ...] = ()
    check: Callable[[Any, Path], None] | None = None
    check_before: tuple[str, ...] = ()


def imported_when_run(module: str) -> StageFunction:
    """Return the function `run` of a module that is imported at the first call.

    So a stage that is not due loads nothing.

    Args:
        module: Full name of the module, such as "pipeline.stages.train".
    """

    def run(config: Any, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> StageResult | None:
        return import_module(module).run(config, inputs, out, runtime)

    return run
