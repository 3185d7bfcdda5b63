"""Command `convert`: a data set as nnU-Net raw or Medical Segmentation Decathlon folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.base.errors import EXIT_DONE, EXIT_SOME_CASES
from pipeline.layouts.convert.convert_dataset import convert_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", type=Path, metavar="CONFIG|MANIFEST")
    parser.add_argument("--to", required=True, choices=("nnunet", "msd"))
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    """Write the data set in the other layout; 4 if some cases had to be left out."""
    result = convert_dataset(arguments.source, arguments.to, arguments.output)
    print(result.message)
    return EXIT_SOME_CASES if result.problems else EXIT_DONE
