"""Commands `load` to `package`: one stage alone."""

from __future__ import annotations

import argparse

from pipeline.commands.config_arguments import add_config_arguments
from pipeline.commands.run import run_config
from pipeline.config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the stage that the command is named after."""
    config = load_config(arguments.config, arguments.overrides)
    return run_config(config, arguments.out, only=arguments.command, force=arguments.force)
