"""The whole configuration: one section per stage, read from YAML, all faults named at once with line and key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from pipeline.base.errors import ConfigError, Problem, did_you_mean, problem_list
from pipeline.base.strict import Strict
from pipeline.base.yaml_source import KeyPath, Source, parse_value, read_yaml
from pipeline.stages.evaluate import EvaluateConfig
from pipeline.stages.infer import InferConfig
from pipeline.stages.load import DataConfig, LoadConfig
from pipeline.stages.package import PackageConfig
from pipeline.stages.plan import PlanConfig
from pipeline.stages.report import ReportConfig
from pipeline.stages.sample import SampleConfig
from pipeline.stages.train import TrainConfig


class ExecutorConfig(Strict):
    """How work per case is spread; never changes a result."""

    name: Literal["process", "serial", "ray"] = "process"
    """process: one process per core. serial: one after the other. ray: a cluster (pip install 'segpipe[ray]')."""
    workers: int | None = Field(default=None, ge=1)
    """Processes; null is one per usable core."""


class PipelineConfig(Strict):
    """A complete run."""

    name: str
    """Names the run; its folder is runs/NAME unless --out is given."""
    seed: int = Field(default=0, ge=0)
    """Every random number follows from it."""
    device: str = "auto"
    """auto, cuda, cuda:N or cpu."""
    data: DataConfig
    executor: ExecutorConfig = ExecutorConfig()
    load: LoadConfig = LoadConfig()
    plan: PlanConfig = PlanConfig()
    sample: SampleConfig = SampleConfig()
    train: TrainConfig = TrainConfig()
    infer: InferConfig = InferConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    package: PackageConfig = PackageConfig()

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                "must be usable as a folder name: letters, digits, '.', '_' and '-', for instance liver_ct"
            )
        return name


def load_config(path: Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads and validates a configuration with `key=value` overrides over it.

    A manifest (`.json`) stands for a configuration that names it and leaves every other key at its default.
    Relative paths are relative to the file's folder (to the current folder where given by an override). Raises a
    ConfigError that lists every fault with its line or override, key path and cure.
    """
    source = _of_manifest(path) if path.suffix == ".json" else read_yaml(path)
    problems = [p for p in (_override(source, text) for text in overrides) if p]
    _resolve_paths(source, path.resolve().parent)
    try:
        config = PipelineConfig.model_validate(source.values)
    except ValidationError as error:
        problems += [_explain(source, details) for details in error.errors()]
    if problems:
        raise ConfigError(problem_list(str(path), sorted(set(problems), key=_line_number)))
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


def value_at(config: BaseModel, key_path: str) -> Any:
    """The value at a dotted key path of a validated configuration."""
    value: Any = config
    for key in key_path.split("."):
        value = getattr(value, key)
    return value


def _override(source: Source, text: str) -> Problem | None:
    """Sets one `key.path=value` in the source."""
    key, sign, value_text = text.partition("=")
    keys = key.strip().split(".")
    if not sign or not all(keys):
        return Problem(f"--set {text}", "must be key=value, for instance --set train.loss.name=dice_ce")
    target: Any = source.values
    for parent in keys[:-1]:
        if not isinstance(target.get(parent), dict):
            target[parent] = {}
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


def _path_keys(model: type[BaseModel], at: KeyPath = ()) -> Iterable[KeyPath]:
    for name, info in model.model_fields.items():
        kinds = list(_members(info.annotation))
        if Path in kinds:
            yield (*at, name)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _path_keys(kind, (*at, name))


def _members(annotation: Any) -> Iterable[Any]:
    """The members of a union, through Annotated."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _explain(source: Source, details: Any) -> Problem:
    """A pydantic error as one line for a person."""
    path, models = _locate(source.values, details["loc"])
    place = source.place(path[:-1] if details["type"] == "missing" else path) or source.name
    key = ".".join(map(str, path))
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = sorted({name for model in models for name in model.model_fields})
        what = f"unknown key; {did_you_mean(str(path[-1]), known)}"
    elif kind == "missing":
        what = "this key is required and missing"
    elif kind == "union_tag_invalid":
        allowed = [word.strip(" '") for word in context["expected_tags"].split(",")]
        key, what = (
            f"{key}.name",
            f"unknown name {context['tag']!r}; {_allowed(str(context['tag']), allowed)}",
        )
        place = source.place((*path, "name")) or place
    elif kind == "union_tag_not_found":
        what = "needs a 'name' that says which one is meant"
    elif kind == "literal_error":
        allowed = [word.strip(" '") for word in re.split(r", | or ", context["expected"])]
        what = f"{details['input']!r} is not allowed; {_allowed(str(details['input']), allowed)}"
    else:
        text = re.sub(r"^(Value error|Assertion failed), ", "", details["msg"])
        text = re.sub(r"^Input should", "must", text)
        shown = repr(details["input"])
        what = text[0].lower() + text[1:] + (f", got {shown}" if len(shown) <= 80 and kind != "value_error" else "")
    return Problem(place, f"{key}  {what}" if key else what)


def _allowed(word: str, choices: list[str]) -> str:
    listing = f"allowed: {', '.join(choices)}"
    near = did_you_mean(word, choices)
    return listing if near == listing else f"{near} {listing}"


def _locate(values: Any, loc: Sequence[Any]) -> tuple[KeyPath, list[type[BaseModel]]]:
    """The key path of an error location without union tags, and the models that hold its last key."""
    path: list[str | int] = []
    models: list[type[BaseModel]] = [PipelineConfig]
    for step in loc:
        fields = [model.model_fields[step] for model in models if step in model.model_fields]
        inside = (isinstance(values, dict) and step in values) or (isinstance(values, list) and isinstance(step, int))
        if not inside and not fields:
            models = [model for model in models if _tag(model) == step] or models
            continue
        path.append(step)
        values = values[step] if inside else None
        if fields and step != loc[-1]:
            models = [
                m
                for info in fields
                for m in _members(info.annotation)
                if isinstance(m, type) and issubclass(m, BaseModel)
            ]
    return tuple(path), models


def _tag(model: type[BaseModel]) -> Any:
    name = model.model_fields.get("name")
    return get_args(name.annotation)[0] if name is not None and get_origin(name.annotation) is Literal else None


def _line_number(problem: Problem) -> tuple[int, str]:
    found = re.match(r"line (\d+)", problem.where)
    return (int(found.group(1)) if found else 10**9, problem.where + problem.what)
