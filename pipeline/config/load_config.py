"""Configuration files: read from YAML or a manifest, with `key=value` overrides, and written back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.base.errors import ConfigError, Problem, problem_list
from pipeline.base.strict_model import members, tag_of
from pipeline.config.explain_errors import explain_all, in_file_order
from pipeline.config.pipeline_config import PipelineConfig
from pipeline.config.yaml_source import KeyPath, Source, parse_value, read_yaml


def load_config(path: Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads and validates a configuration with `key=value` overrides over it.

    A manifest (`.json`) stands for a configuration that names it and leaves every other key at its default.
    Relative paths are relative to the file's folder (to the current folder where given by an override). Raises a
    ConfigError that lists every fault with its line or override, key path and cure.
    """
    source = _of_manifest(path) if path.suffix.lower() == ".json" else read_yaml(path)
    problems = [p for p in (_override(source, text) for text in overrides) if p]
    _resolve_paths(source, path.resolve().parent)
    _name_choices(PipelineConfig, source.values)
    try:
        config = PipelineConfig.model_validate(source.values)
    except ValidationError as error:
        problems += explain_all(source, error, PipelineConfig)
    if problems:
        raise ConfigError(problem_list(str(path), sorted(set(problems), key=in_file_order)))
    return config


def _of_manifest(path: Path) -> Source:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-") or "manifest"
    return Source(str(path), {"name": name, "data": {"manifest": str(path.resolve())}})


def to_yaml(config: PipelineConfig) -> str:
    """The resolved configuration: every key with its value, runnable as it stands."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def json_schema() -> dict[str, Any]:
    """A JSON Schema of the configuration, with which editors complete and check keys."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **PipelineConfig.model_json_schema()}


def _override(source: Source, text: str) -> Problem | None:
    """Sets one `key.path=value` in the source."""
    key, sign, value_text = text.partition("=")
    keys = key.strip().split(".")
    if not sign or not all(keys):
        return Problem(f"--set {text}", "must be key=value, for instance --set train.loss.name=dice_ce")
    target: Any = source.values
    for depth, parent in enumerate(keys[:-1], start=1):
        if not isinstance(target.get(parent), dict):
            target[parent] = {}
            source.places[tuple(keys[:depth])] = f"--set {text}"
        target = target[parent]
    try:
        target[keys[-1]] = parse_value(value_text)
    except ConfigError as error:
        return Problem(f"--set {text}", str(error).splitlines()[-1].strip())
    path: KeyPath = tuple(keys)
    for known in [known for known in source.places if known[: len(path)] == path]:
        del source.places[known]
    source.places[path] = f"--set {text}"
    return None


def _resolve_paths(source: Source, folder: Path) -> None:
    """Makes the relative paths of the source absolute."""
    for keys in _path_keys(PipelineConfig):
        parent: Any = source.values
        for key in keys[:-1]:
            parent = parent.get(key) if isinstance(parent, dict) else None
        value = parent.get(keys[-1]) if isinstance(parent, dict) else None
        if not isinstance(value, str) or Path(value).is_absolute():
            continue
        given_by_override = source.place(keys).startswith("--set")
        near_file, near_user = folder / value, Path.cwd() / value
        chosen = near_user if given_by_override or (near_user.exists() and not near_file.exists()) else near_file
        parent[keys[-1]] = str(chosen.resolve())


def _name_choices(model: type[BaseModel], values: Any) -> None:
    """Gives a choice without a `name` its default's: `train.optimizer.lr` alone means that of the default optimiser."""
    for key, info in model.model_fields.items():
        given = values.get(key) if isinstance(values, dict) else None
        if not isinstance(given, dict):
            continue
        kinds = [kind for kind in members(info.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if len(kinds) > 1 and "name" not in given and isinstance(info.default, BaseModel):
            given["name"] = tag_of(type(info.default))
        for kind in kinds if len(kinds) == 1 else ():
            _name_choices(kind, given)


def _path_keys(model: type[BaseModel], at: KeyPath = ()) -> Iterable[KeyPath]:
    for name, info in model.model_fields.items():
        kinds = list(members(info.annotation))
        if Path in kinds:
            yield (*at, name)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _path_keys(kind, (*at, name))
