"""What the viewer shows of a run: its cases with scores, worst first, and their volumes as plain NIfTI bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json, safe_join
from pipeline.base.stage_outputs import is_finished
from pipeline.dataset.loaded_cases import Case, Cases, manifest_image_paths, read_cases, recorded_data_root
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.preprocessing.plan import read_plan
from pipeline.reporting.evaluation_results import Results, read_results
from pipeline.web.browser_volumes import plain_nifti, planned_windows, relabel, to_int16_if_lossless

_SHOWN = ("dice", "nsd", "hd95_mm", "volume_ref_ml", "volume_pred_ml")


@dataclass(frozen=True)
class ViewerRun:
    """The cases of a run that have a prediction, in the order in which they are gone through."""

    name: str
    cases: Cases
    root: Path
    order: tuple[Case, ...]
    predictions: dict[str, Path]
    results: Results | None
    windows: tuple[tuple[float, float] | None, ...]
    """Per channel the intensities to show from black to white; None: each image's own."""

    def listing(self) -> dict[str, Any]:
        """What the page needs to know, as JSON; cases are addressed by their index in this list."""
        return {
            "run": self.name,
            "structures": list(self.cases.structures),
            "channels": [
                {"name": channel.name, "window": window}
                for channel, window in zip(self.cases.channels, self.windows, strict=True)
            ],
            "cases": [self._entry(case) for case in self.order],
        }

    def image(self, index: int, channel: int) -> bytes:
        """One channel of a case's image. IndexError where there is no such case or channel."""
        image = read_image(manifest_image_paths(self.order[index], self.root), resample_channels=True)
        return plain_nifti(to_int16_if_lossless(image.array[channel]), image.grid).to_bytes()

    def reference(self, index: int) -> bytes | None:
        """A case's reference with voxels numbered by structure; None where it has none."""
        case = self.order[index]
        return None if case.label is None else self._labels(safe_join(self.root, case.label))

    def prediction(self, index: int) -> bytes:
        """A case's prediction, numbered like the reference."""
        return self._labels(self.predictions[self.order[index].id])

    def _labels(self, path: Path) -> bytes:
        """0 is background, i the i-th structure; where structures overlap, the innermost is on top."""
        volume = read_label(path)
        return plain_nifti(relabel(volume.array, list(self.cases.structures.values())), volume.grid).to_bytes()

    def _entry(self, case: Case) -> dict[str, Any]:
        scores, mean = {}, None
        if self.results and case.id in self.results.cases:
            i = self.results.cases.index(case.id)
            mean = _finite(self.results.mean_over_structures("dice")[i])
            for s, structure in enumerate(self.results.structures):
                scores[structure] = {metric: _finite(self.results.of(metric)[i, s]) for metric in _SHOWN}
        return {"id": case.id, "split": case.split, "reference": case.label is not None, "dice": mean, "scores": scores}


def load_viewer_run(run: Path) -> ViewerRun:
    """Reads a run folder, with scores where there are any. ConfigError where `load` or `infer` is not finished."""
    for stage in ("load", "infer"):
        if not is_finished(run / stage):
            raise ConfigError(
                f"{run}: there is no finished {stage} stage; give the folder of a run: `segpipe run CONFIG` makes one"
            )
    cases = read_cases(run / "load")
    inferred = read_json(run / "infer" / "cases.json")["cases"]
    predictions = {e["id"]: safe_join(run / "infer", e["prediction"]) for e in inferred if e.get("prediction")}
    results = read_results(run / "evaluate") if is_finished(run / "evaluate") else None
    worst = [results.cases[i] for i in results.worst_first()] if results else []
    rank = {case: place for place, case in enumerate(worst)}
    shown = [case for case in cases.cases if case.id in predictions]
    if not shown:
        raise ConfigError(f"{run}: no case has a prediction, so there is nothing to view")
    order = tuple(sorted(shown, key=lambda case: (rank.get(case.id, len(rank)), case.id)))
    root = recorded_data_root(run / "load")
    return ViewerRun(run.resolve().name, cases, root, order, predictions, results, _windows(run, cases))


def _windows(run: Path, cases: Cases) -> tuple[tuple[float, float] | None, ...]:
    if not is_finished(run / "plan"):
        return (None,) * len(cases.channels)
    return planned_windows(read_plan(run / "plan").channels)


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
