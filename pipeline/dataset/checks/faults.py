"""Faults: what is wrong with a case, in which file, and its cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.io.image_file_error import ImageFileError

Severity = Literal["fatal", "fixable", "warning"]
SEVERITIES: tuple[Severity, ...] = ("fatal", "fixable", "warning")
ALL_CASES = "all cases"
"""In place of a case, for a fault of the data set as a whole."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a case: what was found in which file, and its cure. See `_MEANING`."""

    case: str
    file: str
    """Relative to the data root; empty where no one file is at fault."""
    severity: Severity
    code: str
    found: str
    cure: str

    @classmethod
    def of_file(cls, case: str, file: str, fault: ImageFileError) -> Fault:
        """The fault of a file that was refused; paths outside the data set are left out."""
        return cls(case, file, "fatal", fault.code, fault.found, fault.cure)

    def __str__(self) -> str:
        place = f"{self.case}  {self.file}" if self.file else self.case
        return f"{self.severity:<7}  {place}: {self.found}; {self.cure}"


class Report:
    """Collects the faults of one case while it is checked."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.faults: list[Fault] = []

    def add(self, severity: Severity, file: str | None, code: str, found: str, cure: str) -> None:
        """file: relative to the data root; None where no one file is at fault."""
        self.faults.append(Fault(self.case, file or "", severity, code, found, cure))

    def refused(self, file: str, fault: ImageFileError) -> None:
        """A file that cannot be used at all."""
        self.faults.append(Fault.of_file(self.case, file, fault))

    @property
    def fatal(self) -> bool:
        return any(fault.severity == "fatal" for fault in self.faults)
