"""Command `show-config`: the resolved configuration, or its JSON Schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline.base.errors import EXIT_DONE, ConfigError
from pipeline.commands.config_arguments import add_set_argument
from pipeline.config import json_schema, load_config, to_yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG")
    add_set_argument(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema that editors complete keys with")


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration with every key, or the schema."""
    if arguments.schema:
        print(json.dumps(json_schema(), indent=2))
    elif arguments.config is None:
        raise ConfigError("show-config needs a CONFIG, or --schema")
    else:
        print(to_yaml(load_config(arguments.config, arguments.overrides)), end="")
    return EXIT_DONE
