"""Benchmarks are run by hand and rarely: what they import of the pipeline must still be there."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
OF_OTHERS = ("recording", "nnunet_model", "nnunet_step")
"""What is no measurement of its own, or is run by a peer's Python."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_of_the_pipeline_is_there(script: Path) -> None:
    imports = [
        node for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
    ]
    ours = [node for node in imports if (node.module or "").startswith("pipeline")]
    for node in ours:
        for name in node.names:
            assert _is_there(node.module or "", name.name), f"line {node.lineno}: {node.module} has no {name.name}"
    assert ours or script.stem in OF_OTHERS, f"{script.name} measures nothing of ours"


def _is_there(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name) or find_spec(f"{module}.{name}") is not None
