"""What is wrong with a configuration, in words: line, key, what was found, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.base.errors import Problem, did_you_mean
from pipeline.base.strict_model import members, tag_of
from pipeline.config.yaml_source import KeyPath, Source


def explain_all(source: Source, error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """What validating `source` as a `root` found: one problem per place and key."""
    said: dict[tuple[str, str], list[str]] = {}
    for details in _meant(error.errors()):
        place, key, what = _explain(source, details, root)
        wants = said.setdefault((place, key), [])
        wants += [what] if what not in wants else []
    return [
        Problem(place, f"{key}  {'; or '.join(wants)}" if key else wants[0]) for (place, key), wants in said.items()
    ]


_KINDS = {
    "model_type": "must be a section of keys and values",
    "model_attributes_type": "must be a section of keys and values",
    "dict_type": "must be a section of keys and values",
    "tuple_type": "must be a list, such as [1, 2, 3]",
    "path_type": "must be a path, as text",
    "string_type": "must be text",
}


def _meant(errors: Sequence[Any]) -> list[Any]:
    """Without "this list is not the word" where a fault within the list is named too: a list was meant."""
    within = {tuple(one["loc"][:-2]) for one in errors}
    return [
        one
        for one in errors
        if not (one["type"] == "literal_error" and isinstance(one["input"], list) and one["loc"][:-1] in within)
    ]


def _explain(source: Source, details: Any, root: type[BaseModel]) -> tuple[str, str, str]:
    """Place, key path and, in one line for a person, what a pydantic error says."""
    path, models = _locate(source.values, details["loc"], root)
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    place = source.place(path[:-1] if kind == "missing" else path) or source.name
    if kind == "extra_forbidden":
        known = sorted({name for model in models for name in model.model_fields})
        what = f"unknown key; {did_you_mean(str(path[-1]), known)}"
    elif kind == "missing":
        too_short = isinstance(details["loc"][-1], int)
        what = f"{details['loc'][-1] + 1} values are needed" if too_short else "this key is required and missing"
    elif kind == "union_tag_invalid":
        allowed = [word.strip(" '") for word in context["expected_tags"].split(",")]
        what = f"unknown name {context['tag']!r}; {_allowed(str(context['tag']), allowed)}"
        path = (*path, "name")
        place = source.place(path) or place
    elif kind == "union_tag_not_found":
        what = "needs a 'name' that says which one is meant"
    elif kind == "literal_error":
        allowed = [word.strip(" '") for word in re.split(r", | or ", context["expected"])]
        what = f"{given!r} is not allowed; {_allowed(str(given), allowed)}"
    elif kind == "string_pattern_mismatch":
        meant = next(
            (model.model_fields[path[-1]].description for model in models if path[-1] in model.model_fields), ""
        )
        what = f"{given!r} is not of the right form: {meant}"
    elif kind in _KINDS:
        what = f"{_KINDS[kind]}, got {given!r}"
    else:
        text = re.sub(r"^(Value error|Assertion failed), ", "", details["msg"])
        text = re.sub(r"^Input should", "must", text)
        what = (
            text[0].lower()
            + text[1:]
            + (f", got {given!r}" if len(repr(given)) <= 80 and kind != "value_error" else "")
        )
    return place, ".".join(map(str, path)), what


def _allowed(word: str, choices: list[str]) -> str:
    listing = f"allowed: {', '.join(choices)}"
    near = did_you_mean(word, choices)
    return listing if near == listing else f"{near} {listing}"


def _locate(values: Any, loc: Sequence[Any], root: type[BaseModel]) -> tuple[KeyPath, list[type[BaseModel]]]:
    """The key path of an error location without union tags, and the models that hold its last key."""
    path: list[str | int] = []
    models: list[type[BaseModel]] = [root]
    for step in loc:
        fields = [model.model_fields[step] for model in models if step in model.model_fields]
        inside = step in values if isinstance(values, dict) else isinstance(values, list) and step in range(len(values))
        if not inside and not fields:
            models = [model for model in models if tag_of(model) == step] or models
            continue
        path.append(step)
        values = values[step] if inside else None
        if fields and step != loc[-1]:
            models = [
                m
                for info in fields
                for m in members(info.annotation)
                if isinstance(m, type) and issubclass(m, BaseModel)
            ]
    return tuple(path), models


def in_file_order(problem: Problem) -> tuple[int, str]:
    """Sorts problems by their line; those of overrides last."""
    found = re.match(r"line (\d+)", problem.where)
    return (int(found.group(1)) if found else 10**9, problem.where + problem.what)
