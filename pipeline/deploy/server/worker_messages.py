"""Task of the service for its worker, as a message between two processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ServiceTask:
    """One case. strict: refuse a scan unlike the training data. shown: write what a browser page shows, too.

    dicom_seg: the case is a DICOM series whose segmentation is wanted as DICOM-SEG, too.
    """

    images: tuple[Path, ...]
    output: Path
    strict: bool = False
    shown: bool = False
    dicom_seg: bool = False

    @property
    def dicom_seg_path(self) -> Path:
        return self.output.with_name("segmentation.dcm")

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "images": [str(path) for path in self.images], "output": str(self.output)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ServiceTask:
        images = tuple(Path(path) for path in content["images"])
        return cls(images, Path(content["output"]), content["strict"], content["shown"], content["dicom_seg"])
