"""The journal of a batch: which cases are done, so that a later command goes on with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json, write_json
from pipeline.base.hashing import digest_of
from pipeline.inference.segmentation_jobs import CaseResult, Job
from pipeline.io.file_stamps import digest_of_stamps

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


def open_case_journal(output: Path, jobs: Sequence[Job], request: Mapping[str, Any]) -> CaseJournal | None:
    """Return the record of what is done in the folder `output`, so that an interrupted batch goes on from it.

    Args:
        output: The folder of the segmentations, which is made, or the single file that is written.
        jobs: The cases.
        request: What the segmentations depend on, as JSON; a record of another request is begun again.

    Returns:
        The record; None if a single file is written.

    Raises:
        ConfigError: The folder cannot be made.
    """
    if not jobs or jobs[0].output == output:
        return None
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be made: {error.strerror}; choose another") from None
    scans = {job.id: digest_of_stamps(job.images) for job in jobs}
    return CaseJournal(output / JOURNAL, digest_of(dict(request)), scans)
