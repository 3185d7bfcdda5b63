"""YAML without its traps."""

from __future__ import annotations

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.yaml_source import parse_value, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5E+3", 1500.0),
        ("-3", -3),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("[1, 2.0, x]", [1, 2.0, "x"]),
        ("{name: vnet, channels: [16, 32]}", {"name": "vnet", "channels": [16, 32]}),
        ("'1e-4'", "1e-4"),
    ],
)
def test_values_are_what_they_look_like(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_every_key_has_its_line():
    source = parse_yaml("name: x\ntrain:\n  loss:\n    name: dice\n", "a.yaml")
    assert source.place(("train", "loss", "name")) == "line 4"
    assert source.place(("train", "loss", "unknown")) == "line 3"
    assert source.place(("name",)) == "line 1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3  a: this key stands already on line 1"]),
        ("a: 1\na: 2\nb: {c: 1, c: 2}\n", ["has 2 problems", "line 2  a", "line 3  b.c"]),
        ("a: &x [1]\nb: *x\n", ["line 2  b: aliases"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["nothing in a configuration is executed"]),
        ("a: !!python/name:os.system x\n", ["nothing in a configuration is executed"]),
        ("a: [1, 2\n", ["not YAML"]),
        ("- a\n- b\n", ["must hold keys and values"]),
    ],
)
def test_traps_are_refused_by_line(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "a.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)
