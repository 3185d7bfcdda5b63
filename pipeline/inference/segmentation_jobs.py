"""Cases to segment and what became of them: plain values, without anything heavy to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

CASE_FAULTS = (Exception,)
"""What a single case may raise without ending the batch: a bad file, little memory, a full disk, a fault of ours."""


@dataclass(frozen=True)
class Job:
    """One case to segment: its image files (one a channel, or one 4D file) and the file to write."""

    id: str
    images: tuple[Path, ...]
    output: Path
    model: str = ""
    """Which of several predictors does it, for instance a fold."""
    texts: bool = True
    """Whether the description in the scan's header is given back, which may name the patient."""

    def to_json(self) -> dict[str, Any]:
        images = [str(path) for path in self.images]
        return {**asdict(self), "images": images, "output": str(self.output)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Job:
        paths = {"images": tuple(map(Path, content["images"])), "output": Path(content["output"])}
        return cls(**{**content, **paths})


@dataclass(frozen=True)
class CaseResult:
    """What became of one case.

    peak_memory_gib: the largest resident set of the process from its beginning to that of the next one. score: mean
    uncertainty of what was found (of everything where nothing was), where it was asked for. output: the name of its
    file, if one was written. backend: what ran the networks.
    """

    id: str
    status: Literal["done", "failed"]
    message: str = ""
    seconds: float = 0.0
    peak_memory_gib: float = 0.0
    score: float | None = None
    output: str | None = None
    backend: str = ""
