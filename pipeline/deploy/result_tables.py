"""What lies beside the segmentations of a batch: `cases.csv` for people, `volumes.json` for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.base.files import write_json, write_text
from pipeline.base.terminal import format_table
from pipeline.inference.segment_cases import CaseResult
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.packaging.label_metadata import Label
from pipeline.packaging.model_package import ModelPackage

_COLUMNS = ("case", "status", "seconds", "peak_memory_gib", "uncertainty", "backend", "message")


def write_results(folder: Path, results: Sequence[CaseResult], model: ModelPackage) -> None:
    """Writes `cases.csv` and `volumes.json` for the segmentations in `folder`."""
    write_text(folder / "cases.csv", cases_csv(results))
    cases = []
    for result in results:
        path = None if result.output is None else folder / result.output
        volumes = None if path is None else structure_volumes_ml(read_label(path), model.labels)
        cases.append(
            {
                "case": result.id,
                "status": result.status,
                "segmentation": None if path is None else path.name,
                "volumes_ml": volumes,
                "uncertainty": result.score,
                "message": result.message,
            }
        )
    about = {"name": model.name, "version": model.version, "digest": model.digest}
    write_json(folder / "volumes.json", {"model": about, "cases": cases})


def cases_csv(results: Sequence[CaseResult]) -> str:
    """One row per case: what became of it, how long it took and what there is to say about it.

    uncertainty: the score of a case (docs/definitions.md), empty where it was not asked for.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for r in results:
        score = "" if r.score is None else f"{r.score:.6f}"
        writer.writerow([r.id, r.status, f"{r.seconds:.2f}", f"{r.peak_memory_gib:.2f}", score, r.backend, r.message])
    return text.getvalue()


def structure_volumes_ml(segmentation: Volume, labels: Sequence[Label]) -> dict[str, float]:
    """Structure to its volume in millilitres; a structure that is not there has 0."""
    values, counts = np.unique(segmentation.array, return_counts=True)
    voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    voxel_ml = abs(float(np.linalg.det(segmentation.grid.affine[:3, :3]))) / 1000.0
    return {label.name: voxel_ml * sum(voxels.get(value, 0) for value in label.values) for label in labels}


def results_table(results: Sequence[CaseResult]) -> str:
    """A table of the cases for the terminal."""
    scored = any(result.score is not None for result in results)
    columns = ("case", "status", "seconds", "peak GiB", *(["uncertainty"] if scored else []), "message")
    rows = []
    for r in results:
        score = [] if not scored else ["" if r.score is None else f"{r.score:.4f}"]
        rows.append((r.id, r.status, f"{r.seconds:.2f}", f"{r.peak_memory_gib:.2f}", *score, r.message))
    return format_table(columns, rows)
