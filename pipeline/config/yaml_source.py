"""YAML without its traps: every key with its line, no duplicate keys, numbers that look like numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.base.errors import ConfigError, Problem, problem_list

KeyPath = tuple[str | int, ...]
_PLAIN_TAGS = {"str", "int", "float", "bool", "null", "map", "seq"}


class _Loader(yaml.SafeLoader):
    """Only true/false, null, integers and floats are special (YAML 1.2's core): `no`, `1:30` and `010` stay text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$",
        "-+.0123456789",
    ),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass
class Source:
    """A parsed document: its `values`, and for each key path the place (`line 14`, `--set`) that gave it."""

    name: str
    values: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where the value at `path` comes from, or the nearest parent that stands in the document."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return ""


def read_yaml(path: Path) -> Source:
    """Parses a YAML file; a ConfigError names every duplicate key, alias or syntax fault with its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Source:
    """As `read_yaml`, from a string."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(problem_list(name, [Problem(f"line {line}", f"not YAML: {error.problem}")])) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {error}") from None
    source, problems = Source(name, {}), list[Problem]()
    if node is not None:
        values = _Walk(source, problems).value(node, ())
        if isinstance(values, dict):
            source.values = values
        else:
            problems.append(Problem("line 1", "must hold keys and values, such as 'name: my_run'"))
    if problems:
        raise ConfigError(problem_list(name, problems))
    return source


def parse_value(text: str) -> Any:
    """One value as in a file: `3` is a number, `[1, 2]` a list, `{name: vnet}` a mapping, `30m` text."""
    return parse_yaml(f"value: {text}", repr(text)).values["value"]


class _Walk:
    """Turns nodes into values and notes their lines and faults."""

    def __init__(self, source: Source, problems: list[Problem]) -> None:
        self.source, self.problems = source, problems
        self.seen: set[int] = set()
        self.scalars = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        place = self.source.places.setdefault(path, f"line {node.start_mark.line + 1}")
        if not isinstance(node, yaml.ScalarNode) and id(node) in self.seen:
            self.problems.append(
                Problem(place, f"{_dotted(path)}: aliases (&, *) are not allowed; write the value out")
            )
            return None
        self.seen.add(id(node))
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
            what = f"{_dotted(path)}: the tag {node.tag} is not allowed; nothing in a configuration is executed"
            self.problems.append(Problem(place, what))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self.scalars.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, key = key_node.start_mark.line + 1, str(key_node.value)
            here = (*path, key)
            if key in result:
                first = self.source.places[here]
                self.problems.append(Problem(f"line {line}", f"{_dotted(here)}: this key stands already on {first}"))
                continue
            self.source.places[here] = f"line {line}"
            result[key] = self.value(value_node, here)
        return result


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))
