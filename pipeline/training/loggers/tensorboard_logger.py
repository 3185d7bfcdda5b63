"""TensorBoard events of one fold: curves and pictures of validations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.training.loggers.tensorboard_images import ValidationImage


class TensorboardLogger:
    """Writer of a fold's events; those after `resumed_step` in an earlier file are hidden."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=resumed_step + 1, flush_secs=30)

    def add(self, values: Mapping[str, int | float], step: int) -> None:
        """Add one point to the curve of each value but `step` itself."""
        for name, value in values.items():
            if name != "step":
                self.writer.add_scalar(name, value, step)

    def show(self, pictures: Mapping[str, ValidationImage], step: int) -> None:
        """Add pictures of a validation, by case."""
        for case, picture in pictures.items():
            self.writer.add_image(f"validation/{case}", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write out what is still waiting."""
        self.writer.close()
