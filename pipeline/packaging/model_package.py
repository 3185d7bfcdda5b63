"""The model package on disk: its content, opened and verified.

A package is a folder, or a zip of one. `package.json` lists every file that belongs to it with size and sha256;
opening it reads all of them once, refuses an altered byte, and never touches a file that is not listed. A package
holds values only: nothing in it is ever executed or unpickled.
"""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import __version__
from pipeline.base.errors import DataError
from pipeline.base.files import read_json, safe_join
from pipeline.base.hashing import digest_of
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.packaging.label_files import read_labels
from pipeline.packaging.label_metadata import Label
from pipeline.packaging.package_seal import SEAL, Seal, check_files, checked_seal, first_fault
from pipeline.packaging.package_zip import unzip_package
from pipeline.preprocessing.plan import Plan, read_plan


@dataclass(frozen=True)
class ModelPackage:
    """An opened and verified package.

    weights: absolute paths of safetensors files, one per network of the ensemble. digest: identifies the package, since
    it covers the hash of every file. fingerprint: what the training data looked like (see stage `load`).
    """

    folder: Path
    seal: Seal
    plan: Plan
    weights: tuple[Path, ...]
    settings: PredictorConfig
    labels: tuple[Label, ...]
    fingerprint: dict[str, Any]
    digest: str
    _unpacked: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)
    """Holds the folder of an unpacked zip for as long as this value lives."""

    @property
    def name(self) -> str:
        return self.seal.name

    @property
    def version(self) -> str:
        return self.seal.version

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of what a case consists of, in order."""
        return tuple(channel.name for channel in self.plan.channels)

    @property
    def metrics(self) -> dict[str, Any]:
        """The evaluation that the package was shipped with (`summary.json`)."""
        return dict(read_json(self.folder / "metrics" / "summary.json"))

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return (self.folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def load_package(path: Path) -> ModelPackage:
    """Opens the package in a folder or zip file after checking the hash of every file.

    Raises DataError: no package there, a format of the future, a file missing or altered, a path that leaves the
    package, or a value that does not fit its schema.
    """
    if path.is_dir():
        return _open_folder(path, None)
    if not path.exists():
        raise DataError(f"{path}: there is no such model package; give the folder (RUN/package) or a zip of one")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a model package; give the folder RUN/package or a zip of one")
    unpacked = tempfile.TemporaryDirectory(prefix="segpipe-package-")
    unzip_package(path, Path(unpacked.name))
    return _open_folder(Path(unpacked.name), unpacked)


def _open_folder(folder: Path, unpacked: tempfile.TemporaryDirectory[str] | None) -> ModelPackage:
    if not (folder / SEAL).is_file():
        nested = folder / "package" / SEAL
        cure = f"did you mean {nested.parent}?" if nested.is_file() else "`segpipe package CONFIG` writes RUN/package"
        raise DataError(f"{folder}: not a model package, it has no {SEAL}; {cure}")
    seal = checked_seal(read_json(folder / SEAL), folder / SEAL)
    check_files(folder, seal)
    try:
        return ModelPackage(
            folder=folder,
            seal=seal,
            plan=read_plan(folder),
            weights=tuple(safe_join(folder, name) for name in seal.weights),
            settings=PredictorConfig.from_record(read_json(folder / "inference.json")),
            labels=read_labels(folder),
            fingerprint=read_json(folder / "fingerprint.json"),
            digest=digest_of(seal.model_dump(mode="json")),
            _unpacked=unpacked,
        )
    except ValidationError as error:
        raise DataError(f"{folder}: the package does not fit segpipe {__version__}: {first_fault(error)}") from None
