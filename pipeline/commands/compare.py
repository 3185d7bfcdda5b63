"""Command `compare`: runs side by side, with paired statistics."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.base.errors import EXIT_DONE
from pipeline.evaluation.compare import compare_runs
from pipeline.reporting.charts.comparison_chart import draw_comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("sources", type=Path, nargs="+", metavar="RUN_OR_SUMMARY")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    """Compare the runs and draw their differences."""
    compare_runs(arguments.sources, arguments.output, draw=draw_comparison)
    return EXIT_DONE
