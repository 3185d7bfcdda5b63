"""Command `image`: a container image with a model inside."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.base.errors import EXIT_DONE
from pipeline.deploy.container_image import build_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("package", type=Path, metavar="PACKAGE")
    parser.add_argument("-t", "--tag", required=True)
    parser.add_argument("--base", default="cpu", choices=("cpu", "cuda", "slim"))
    parser.add_argument(
        "--engine", choices=("docker", "podman", "buildah"), help="default: the first that is installed"
    )


def run(arguments: argparse.Namespace) -> int:
    """Build the image with the engine."""
    build_image(arguments.package, arguments.tag, base=arguments.base, engine=arguments.engine)
    return EXIT_DONE
