"""Keeps patients' data out of the log: errors and warnings of libraries that read DICOM quote what they read."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from types import TracebackType

from pipeline.base.errors import SegpipeError


def silence_dicom_logging() -> None:
    """Silences such warnings for good, and lets this process die without the message of any error but our own."""
    warnings.simplefilter("ignore")
    for library in ("pydicom", "highdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    sys.excepthook = _die


def traceback_without_message(error: BaseException) -> str:
    """Where an error came from and its kind, without the message, which may hold values of a header."""
    return "".join([*traceback.format_tb(error.__traceback__), type(error).__name__])


def _die(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    print(error if isinstance(error, SegpipeError) else traceback_without_message(error), file=sys.stderr)
