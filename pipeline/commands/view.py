"""Command `view`: the cases of a run in the browser, offline."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.base.errors import EXIT_DONE
from pipeline.viewer.viewer_server import view


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")


def run(arguments: argparse.Namespace) -> int:
    """Serve the viewer until it is interrupted."""
    view(arguments.run, port=arguments.port, open_browser=not arguments.no_browser)
    return EXIT_DONE
