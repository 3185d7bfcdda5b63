"""Benchmarks are run by hand and rarely: they must still start, find what they measure, and write their page."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
OF_OTHERS = ("recording", "nnunet_model", "nnunet_step")
"""What is no measurement of its own, or is run by a peer's Python."""
slow = pytest.mark.slow
SMALL = [
    ("metrics", "small", "--quick"),
    ("large_case", "--quick"),
    pytest.param(("dice_ce", "--repeats", "1"), marks=slow),
    pytest.param(("metrics", "large", "--quick"), marks=slow),
    pytest.param(("memory", "--quick", "--plans", "next to nothing"), marks=slow),
    pytest.param(("start_up", "--quick", "--repeats", "1"), marks=slow),
    pytest.param(("sampling", "--quick", "--repeats", "1", "--seconds", "0.1"), marks=slow),
]
"""Those that need neither a peer nor a trained model, at a size that takes seconds.

The tests of memory estimates run `inference_memory`.
"""


def benchmark(name: str, *arguments: str) -> str:
    """Runs a benchmark as a user does, and returns what it prints."""
    command = [sys.executable, f"benchmarks/{name}.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_of_the_pipeline_is_there(script: Path) -> None:
    """Within functions too, which only some of its rows call."""
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in SCRIPTS if path.stem not in OF_OTHERS])
def test_a_benchmark_starts_and_says_how_it_is_used(name: str) -> None:
    assert f"usage: {name}.py" in benchmark(name, "--help")


@pytest.mark.parametrize("command", SMALL, ids=lambda command: " ".join(command[:2]))
def test_a_benchmark_measures_and_writes_its_page(command: tuple[str, ...], tmp_path: Path) -> None:
    """A table with figures below the command and the versions that they are of."""
    page = tmp_path / "record.md"
    printed = benchmark(*command, "--record", str(page))
    circumstances, _, table = page.read_text(encoding="utf-8").partition("\n\n| ")[2].partition("\n\n| ")
    assert f"| command | python benchmarks/{command[0]}.py {' '.join(command[1:2])}" in circumstances
    assert "| versions | Python " in circumstances
    _, line, *rows = table.split("\n\n")[0].splitlines()
    assert set(line) <= set("| -") and rows
    assert all(any(character.isdigit() for character in row) for row in rows)
    assert f"wrote {page}" in printed
