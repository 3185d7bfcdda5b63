"""Cache of finished stages: the request that a stage answers, and why a finished folder does not answer it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.base.errors import SegpipeError
from pipeline.base.files import read_json
from pipeline.base.stage import RECORD, Stage
from pipeline.base.stage_outputs import altered_output, is_finished, output_digest
from pipeline.base.strict_model import StrictModel, fill_absent


def request_of(stage: Stage, config: StrictModel, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """What the stage is asked to do, as JSON: equal requests have equal results."""
    request = {
        "stage": stage.name,
        "version": stage.version,
        "config": cache_key_config(stage, config),
        "inputs": {name: output_digest(inputs[name]) for name in stage.inputs},
        "sources": dict(stage.sources(config)) if stage.sources else {},
    }
    if versions := dict(_entry_versions(config, stage.name)):
        request["entry_versions"] = versions
    return request


def cache_key_config(stage: Stage, config: StrictModel) -> dict[str, Any]:
    """The configuration that a stage's result depends on, as JSON."""
    return drop_ignored_keys(stage, config.model_dump(mode="json"))


def recorded_request(stage: Stage, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request as an earlier version recorded it, in the form of a request of today.

    A key that the record does not have counts as the value that it stood for when the record was written
    (`fill_absent`). So a new key does not make finished work stale.
    """
    return {**request, "config": drop_ignored_keys(stage, fill_absent(stage.config, request["config"]))}


def drop_ignored_keys(stage: Stage, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as a record may hold it, without the keys that change no result."""
    values = deepcopy(dict(config))
    for path in stage.ignored_keys:
        *above, key = path.split(".")
        reduce(lambda inner, step: inner.get(step, {}), above, values).pop(key, None)
    return values


def staleness_reason(stage: Stage, request: Mapping[str, Any], folder: Path) -> str | None:
    """Why `folder` does not answer `request`, in words; None where it does."""
    if not is_finished(folder):
        return "it is not finished"
    try:
        record = read_json(folder / RECORD)
        recorded, outputs = recorded_request(stage, record["request"]), record["outputs"]
    except (SegpipeError, KeyError, TypeError):
        return f"its {RECORD} cannot be read"
    if recorded != request:
        return "changed: " + ", ".join(differences(recorded, dict(request)))
    return altered_output(stage, folder, outputs)


def changed_since(stage: Stage, settings: StrictModel, run_folder: Path) -> list[str]:
    """Return what a finished stage was made from and is another now, in words: keys, files, results of earlier stages.

    Args:
        stage: The stage.
        settings: What the stage reads of the configuration now.
        run_folder: The run folder, with the folders of the stage and of those that it reads.
    """
    if stage.changed_since is not None:  # the request holds paths, which may be those of another machine
        return stage.changed_since(settings, run_folder / stage.name)
    request = recorded_request(stage, read_json(run_folder / stage.name / RECORD)["request"])
    recorded, wanted = request["config"], cache_key_config(stage, settings)
    keys = sorted(key for key in {*recorded, *wanted} if recorded.get(key) != wanted.get(key))
    inputs = [name for name in stage.inputs if request["inputs"].get(name) != output_digest(run_folder / name)]
    return [*keys, *(f"what {name} wrote" for name in inputs)]


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """Key paths whose values differ between two JSON values, for people."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            place = key if at in {"", "config", "inputs", "sources"} else f"{at}.{key}"
            found += differences(old.get(key), new.get(key), place) if old.get(key) != new.get(key) else []
        return found
    return [at]


def _entry_versions(value: Any, path: str) -> Iterator[tuple[str, int]]:
    """Key path and version of every table entry in a configuration (a loss, a network) whose version is above 1."""
    if isinstance(value, BaseModel):
        if isinstance(value, StrictModel) and value.entry_version > 1:
            yield path, value.entry_version
        for name in type(value).model_fields:
            yield from _entry_versions(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry_versions(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _entry_versions(item, f"{path}.{index}")
