"""Every module with logic has a test file of its name in the same place, or a line that says which test covers it.

The lines are in `covered_elsewhere.txt`: the module, and the test files in which it is run. A line is held to what can
be read off the code: the test file exists, imports the module (through others, as the program does), and the module has
no test file of its own.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("covered_elsewhere.txt")


def lines() -> dict[str, list[str]]:
    rows = [row.split() for row in TABLE.read_text(encoding="utf-8").splitlines() if row and not row.startswith("#")]
    assert len({module for module, *_ in rows}) == len(rows), "a module stands twice"
    return {module: tests for module, *tests in rows}


def has_logic(path: Path) -> bool:
    """Whether a module defines a function or method: values and settings alone are tested where they are used."""
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(parsed(path)))


def own_test(module: Path) -> Path:
    place = module.relative_to(ROOT / "pipeline")
    return ROOT / "tests" / place.parent / f"test_{place.name}"


MODULES = sorted(path for path in (ROOT / "pipeline").rglob("*.py") if path.name not in {"__init__.py", "__main__.py"})


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def names_in(path: Path) -> frozenset[str]:
    """Modules of ours that a file imports or names: `python -m` and stages are started by name."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"\b(?:pipeline|tests)(?:\.\w+)+", node.value))
            found |= {"pipeline.cli"} if node.value == "pipeline" else set()
    if path == ROOT / "pipeline" / "cli.py":  # which imports the command that is called
        found |= {f"pipeline.commands.{command.stem}" for command in (ROOT / "pipeline" / "commands").glob("*.py")}
    return frozenset(found)


def file_of(name: str) -> Path | None:
    for path in (ROOT / (name.replace(".", "/") + ".py"), ROOT / name.replace(".", "/") / "__init__.py"):
        if path.is_file():
            return path
    return None


def reached_from(test: Path) -> set[Path]:
    reached, left = {test}, [test, *(parent / "conftest.py" for parent in test.parents if parent != ROOT.parent)]
    while left:
        path = left.pop()
        if path.is_file():
            new = {file for name in names_in(path) if (file := file_of(name)) is not None} - reached
            reached |= new
            left += new
    return reached


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_with_logic_is_tested_where_its_name_says(module: Path) -> None:
    name, table = module.relative_to(ROOT).as_posix(), lines()
    if own_test(module).is_file():
        assert name not in table, f"{name} has a test file of its own; take its line out of {TABLE.name}"
        return
    if name not in table:
        wanted = own_test(module).relative_to(ROOT).as_posix()
        assert not has_logic(module), (
            f"{name}: write {wanted}, or a line in {TABLE.name} that says which test covers it"
        )
        return
    assert table[name], f"{name}: its line names no test"
    for test in table[name]:
        assert (ROOT / test).is_file(), f"{name}: there is no {test}"
        assert module in reached_from(ROOT / test), f"{name}: {test} does not import it"


def test_no_line_is_for_a_module_that_is_gone() -> None:
    assert {ROOT / name for name in lines()} <= set(MODULES)
