"""Command `serve`: a model package over HTTP."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.base.machine import check_device
from pipeline.deploy.server.serve import serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--model", type=Path, required=True, metavar="PACKAGE")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="auto")


def run(arguments: argparse.Namespace) -> int:
    """Serve the model until the process is asked to stop."""
    check_device(arguments.device)
    return serve(arguments.model, host=arguments.host, port=arguments.port, device=arguments.device)
