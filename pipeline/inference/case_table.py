"""Table of the cases that stage infer segmented, as JSON and CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.base.files import write_json
from pipeline.inference.segmentation_jobs import CaseResult, Job


def write_case_table(
    out: Path, jobs: Sequence[Job], folds_of: Callable[[Job], list[str]], results: Mapping[str, CaseResult]
) -> None:
    """Write `cases.json` and `cases.csv`: the status of each case, the folds that segmented it, seconds and memory."""

    (out / "predictions").mkdir(exist_ok=True)
    entries = []
    with (out / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["case", "fold", "status", "seconds", "peak_memory_gib", "uncertainty", "backend", "message"])
        for job in jobs:
            result = results[job.id]
            used = folds_of(job)
            done = result.status == "done"
            entries.append(
                {
                    "id": job.id,
                    "status": result.status,
                    "folds": [int(fold) if fold.isdigit() else fold for fold in used],
                    "prediction": job.output.relative_to(out).as_posix() if done else None,
                    "message": result.message,
                }
            )
            measured = f"{result.seconds:.3f}", f"{result.peak_memory_gib:.3f}"
            score = "" if result.score is None else f"{result.score:.6f}"
            table.writerow([job.id, "+".join(used), result.status, *measured, score, result.backend, result.message])
    write_json(out / "cases.json", {"cases": entries})
