"""Command `demo`: the whole pipeline on phantoms that it makes."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from pipeline.commands.config_arguments import add_set_argument
from pipeline.commands.run import run_config
from pipeline.config import load_config
from pipeline.dataset.phantoms import make_phantoms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    add_set_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make phantoms, unless they are there, and run every stage on them."""
    phantoms = arguments.out / "phantoms"
    manifest = phantoms / "manifest.json"
    if not manifest.is_file():
        make_phantoms(phantoms)
        print(f"made phantoms in {phantoms}")
    overrides = [f"data.manifest={manifest}", f"data.root={phantoms}", *arguments.overrides]
    return run_config(load_config(Path(str(files("pipeline") / "demo.yaml")), overrides), arguments.out)
