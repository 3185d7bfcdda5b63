"""Cases to segment, what became of them, and a journal of it: plain values, without anything heavy to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.base.files import read_json, write_json

JOURNAL = ".segpipe-predict.json"
"""Stays beside the segmentations: who deletes it, or a segmentation, has it made again."""


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


class CaseJournal:
    """What a batch has finished, in one file that is rewritten after every case.

    request: says what is computed with what; a journal of another request is begun anew. scans: a digest of each case's
    files; a case whose files have another one now is not done. Cases that are not asked for now stay noted.
    """

    def __init__(self, path: Path, request: str, scans: Mapping[str, str] | None = None) -> None:
        self.path, self.request = path, request
        self.results: dict[str, CaseResult] = {}
        self._scans = dict(scans or {})
        self._others: list[dict[str, Any]] = []
        if path.is_file() and (content := read_json(path)).get("request") == request:
            for entry in content["cases"]:
                self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        case, scan = entry["id"], entry.get("scan", "")
        if scan == self._scans.get(case, ""):
            self.results[case] = CaseResult(**{key: value for key, value in entry.items() if key != "scan"})
        elif case not in self._scans:
            self._others.append(entry)

    def left_of(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that are not done, failed ones included."""
        return [job for job in jobs if not (self._is_done(job.id) and job.output.is_file())]

    def add(self, result: CaseResult) -> None:
        """Notes a case."""
        self.results[result.id] = result
        entries = [asdict(entry) | {"scan": self._scans.get(entry.id, "")} for entry in self.results.values()]
        write_json(self.path, {"request": self.request, "cases": [*self._others, *entries]})

    def _is_done(self, case: str) -> bool:
        return case in self.results and self.results[case].status == "done"
