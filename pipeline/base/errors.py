"""Errors for people: each says what is wrong, where, what was found, what is allowed and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_DONE, EXIT_OUR_FAULT, EXIT_USAGE, EXIT_DATA, EXIT_SOME_CASES, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130


class SegpipeError(Exception):
    """A failure that a user can understand and repair; the command ends with `exit_code`."""

    exit_code = EXIT_OUR_FAULT


class ConfigError(SegpipeError):
    """The command line or the configuration is wrong (exit code 2)."""

    exit_code = EXIT_USAGE


class DataError(SegpipeError):
    """An image, a label map, a manifest or a package is not as it must be (exit code 3)."""

    exit_code = EXIT_DATA


class TooLargeError(DataError, MemoryError):
    """Data that does not fit into the memory that is free: it may, once work beside it has ended."""


class TrainingError(SegpipeError):
    """Training cannot go on (for instance a loss that stays NaN); the last good weights are kept."""


@dataclass(frozen=True)
class Problem:
    """One entry of a list of problems: `where` it is (line and key, or case), `what` is wrong and its cure."""

    where: str
    what: str


def problem_list(title: str, problems: Sequence[Problem]) -> str:
    """A title with a count and one aligned line a problem."""
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    width = max((len(p.where) for p in problems), default=0)
    return "\n".join([f"{title} has {count}", *(f"  {p.where:<{width}}  {p.what}" for p in problems)])


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """`did you mean 'x'?` where a choice is near `word`, else the choices themselves."""
    from difflib import get_close_matches

    near = get_close_matches(word, choices, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"allowed: {', '.join(map(str, choices))}" if choices else ""


def missing_extra(package: str, extra: str, purpose: str) -> ConfigError:
    """The error for an optional dependency that is not installed, with the command that installs it."""
    return ConfigError(
        f"{purpose} needs {package}, which is not installed; install it with: pip install 'segpipe[{extra}]'"
    )
