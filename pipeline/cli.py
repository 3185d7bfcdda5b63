"""The `segpipe` command: arguments in, exit code out. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from pipeline import __version__
from pipeline.base.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_OUR_FAULT,
    EXIT_USAGE,
    SegpipeError,
)
from pipeline.base.log_to_terminal import log_to_terminal
from pipeline.commands import COMMAND_HELP, STAGE_HELP

# What a user's disk and permissions say; any other failing of the system's calls is a fault of ours.
_NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.EISDIR}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; a user's mistake is a message, never a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments = _parser().parse_args(argv)
        log_to_terminal(sys.stderr if getattr(arguments, "json", False) else sys.stdout)
        return arguments.run_command(arguments)
    except SegpipeError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except MemoryError:
        cure = "end other programs, or use a larger machine (in training a smaller plan.patch_size needs less)"
        print(f"\nnot enough memory; {cure}", file=sys.stderr)
        return EXIT_OUR_FAULT
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_OURS:
            print(f"\n{error.filename or 'writing'}: {error.strerror}; nothing half-written is left", file=sys.stderr)
            return EXIT_USAGE
        traceback.print_exc()
        print(
            f"\nthis is a fault of segpipe {__version__}, please report it with the lines above",
            file=sys.stderr,
        )
        return EXIT_OUR_FAULT


def _interrupt(signum: int, frame: object) -> NoReturn:  # noqa: ARG001, a signal handler's arguments
    raise KeyboardInterrupt


class _CommandParser(argparse.ArgumentParser):
    """A parser that learns its arguments from the command's module, which is imported when the command is called."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Import the command, declare its arguments, and parse them."""
        command = self.get_default("command")
        if command is not None and self.get_default("run_command") is None:
            module = import_module(module_of(command))
            module.add_arguments(self)
            self.set_defaults(run_command=module.run)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segpipe",
        description="From 3D scans with label maps to a validated, deployable segmentation model.",
    )
    parser.add_argument("--version", action="version", version=f"segpipe {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_CommandParser)
    for command, text in COMMAND_HELP.items():
        subparsers.add_parser(command, help=text).set_defaults(command=command)
    return parser


def module_of(command: str) -> str:
    """Return the full name of the module that does a command's work."""
    name = "single_stage" if command in STAGE_HELP else command.replace("-", "_")
    return f"pipeline.commands.{name}"
