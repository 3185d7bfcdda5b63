"""Log of the program on the terminal: plain messages from INFO on."""

from __future__ import annotations

import logging
from typing import TextIO


def log_to_terminal(stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package_log = logging.getLogger("pipeline")
    package_log.handlers[:] = [handler]
    package_log.setLevel(logging.INFO)
    package_log.propagate = False
