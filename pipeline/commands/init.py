"""Command `init`: a manifest and a configuration for a folder of data."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.base.errors import EXIT_DONE
from pipeline.layouts.detect_layout import READERS
from pipeline.layouts.folders.split_images_and_labels import FilePatterns
from pipeline.layouts.init.init_dataset import init_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CONFIG")
    parser.add_argument("--format", default="auto", choices=("auto", *READERS))
    parser.add_argument("--labels", metavar="NAME=VALUE,...", help="label names and values")
    patterns = "by parts of their paths, or by * and ?"
    parser.add_argument("--label-files", metavar="PATTERN,...", help=f"label maps of plain folders, {patterns}")
    parser.add_argument("--image-files", metavar="PATTERN,...", help=f"images of plain folders, {patterns}")


def run(arguments: argparse.Namespace) -> int:
    """Write the manifest and the configuration, and print what was found."""
    patterns = FilePatterns(arguments.label_files, arguments.image_files)
    result = init_dataset(arguments.folder, arguments.output, arguments.format, arguments.labels, patterns)
    print(result.message)
    return EXIT_DONE
