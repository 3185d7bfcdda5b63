"""Keeps patients' data out of the log: libraries that read DICOM quote header values in their warnings."""

from __future__ import annotations

import logging
import warnings


def keep_values_from_the_log() -> None:
    """Silences such warnings in this process, for good; what is wrong with a scan is said to whom it belongs."""
    warnings.simplefilter("ignore")
    for library in ("pydicom", "highdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
