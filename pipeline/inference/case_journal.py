"""The journal of a batch: which cases are done, so that a later command goes on with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.base.files import read_json, write_json
from pipeline.inference.segmentation_jobs import CaseResult, Job

JOURNAL = ".segpipe-predict.json"
"""Stays beside the segmentations: who deletes it, or a segmentation, has it made again."""


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
