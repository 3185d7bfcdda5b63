"""Command `run`: all stages that are not up to date."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.base.files import read_json
from pipeline.base.heap import keep_freed_memory
from pipeline.base.terminal import format_table
from pipeline.commands import STAGE_HELP
from pipeline.commands.config_arguments import add_config_arguments
from pipeline.config import PipelineConfig, load_config
from pipeline.runner import run as run_stages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config_arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--from",
        dest="first",
        choices=STAGE_HELP,
        metavar="STAGE",
        help="start at this stage; earlier ones must be finished",
    )
    which.add_argument("--only", choices=STAGE_HELP, metavar="STAGE", help="run this stage alone")


def run(arguments: argparse.Namespace) -> int:
    """Run the stages and print where the results lie; 4 if some cases failed."""
    config = load_config(arguments.config, arguments.overrides)
    return run_config(config, arguments.out, arguments.first, arguments.only, arguments.force)


def run_config(
    config: PipelineConfig,
    out: Path | None,
    first: str | None = None,
    only: str | None = None,
    force: bool = False,
) -> int:
    """Run a configuration as a command does, and print a summary."""
    keep_freed_memory()
    folder = out if out is not None else Path("runs") / config.name
    code = run_stages(config, folder, first, only, force)
    _print_summary(folder, only)
    return code


def _print_summary(folder: Path, only: str | None) -> None:
    """After a whole run: the table of Dice, where the report lies and what to do with the package."""
    summary = folder / "evaluate" / "summary.json"
    if only in {None, "evaluate"} and summary.is_file():
        content = read_json(summary)
        rows = [(name, *_dice_cells(entry["dice"])) for name, entry in content["structures"].items()]
        mean = ("mean", *_dice_cells(content["mean"]["dice"])[:2], "")
        print("\n" + format_table(("structure", "Dice", "95 % interval", "cases"), [*rows, mean]))
    if only is None:
        print(f"\nreport   {folder / 'report' / 'report.html'}")
        print(f"predict  segpipe predict --model {folder / 'package'} --input SCANS --output SEGMENTATIONS")


def _dice_cells(dice: dict) -> tuple[str, str, str]:
    mean, interval = dice.get("mean"), dice.get("ci95")
    between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval and None not in interval else ""
    return ("undefined" if mean is None else f"{mean:.3f}"), between, str(dice.get("n", ""))
