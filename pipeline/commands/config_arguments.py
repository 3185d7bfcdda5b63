"""Arguments that several commands share: the configuration, its overrides, the run folder."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, --set, --out and --force."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML configuration")
    add_set_argument(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder (default runs/NAME)")
    parser.add_argument("--force", action="store_true", help="do again what is up to date")


def add_set_argument(parser: argparse.ArgumentParser) -> None:
    """Add --set KEY=VALUE, which may be given several times."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key, for instance train.budget=10m",
    )
