"""What training writes down: metrics.csv (repeatable, enters digests), timing.csv and TensorBoard (neither)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.files import write_text
from pipeline.training.loggers.mlflow_logger import MlflowLogger

if TYPE_CHECKING:
    from pipeline.training.loggers.tensorboard_images import ValidationImage


class CsvTable:
    """A CSV file that grows by rows and can be cut back to the step that training resumes from."""

    def __init__(self, path: Path, columns: Sequence[str], resumed_step: int) -> None:
        self.path, self.columns = path, list(columns)
        rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as stream:
                rows = [row for row in csv.DictReader(stream) if _step_of(row) <= resumed_step]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: row.get(column, "") for column in self.columns} for row in rows)
        write_text(path, text.getvalue())

    def add(self, row: Mapping[str, object]) -> None:
        """Appends a row; columns that it does not name stay empty."""
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.columns, lineterminator="\n")
            writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})


def _step_of(row: Mapping[str, str | None]) -> float:
    """A row's step; a half-written last row belongs to no step."""
    text = row.get("step") or ""
    return int(text) if text.isdigit() and None not in row.values() else float("inf")


class MetricFiles:
    """All records of one fold, cut back to `resumed_step`."""

    def __init__(
        self, folder: Path, structures: Sequence[str], resumed_step: int, tensorboard: bool, mlflow: str | None = None
    ) -> None:
        dice = ["dice_mean", *(f"dice_{name}" for name in structures)]
        self.metrics = CsvTable(folder / "metrics.csv", ["step", "lr", "loss", "grad_norm", *dice], resumed_step)
        columns = ["step", "seconds", "data_s", "step_s", "validation_s", "patches_per_s", "peak_memory_gib"]
        self.timing = CsvTable(folder / "timing.csv", columns, resumed_step)
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1, flush_secs=30)
        self.tracker = None if mlflow is None else MlflowLogger(mlflow, folder, resumed_step)

    def add(self, metrics: Mapping[str, int | float], timing: Mapping[str, int | float]) -> None:
        """One row of each; their `step` is the number of steps done."""
        self.metrics.add(metrics)
        self.timing.add(timing)
        if self.writer is not None:
            for name, value in {**metrics, **timing}.items():
                if name != "step":
                    self.writer.add_scalar(name, value, int(metrics["step"]))
        if self.tracker is not None:
            self.tracker.add({**metrics, **timing}, int(metrics["step"]))

    def show(self, pictures: Mapping[str, ValidationImage], step: int) -> None:
        """Pictures of a validation, by case, for TensorBoard alone."""
        if self.writer is not None:
            for case, picture in pictures.items():
                self.writer.add_image(f"validation/{case}", picture, step, dataformats="HWC")

    def close(self, error: BaseException | None = None) -> None:
        """Writes out what is still waiting. error: what ended the training early."""
        if self.writer is not None:
            self.writer.close()
        if self.tracker is not None:
            ended = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
            self.tracker.close(ended)
