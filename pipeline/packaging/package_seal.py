"""The seal of a model package: size and sha256 of every file, and a digest of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import __version__
from pipeline.base.errors import DataError
from pipeline.base.files import safe_join, write_json
from pipeline.base.hashing import digest_of, sha256_of
from pipeline.base.strict_model import StrictModel

FORMAT = 2
SEAL = "package.json"
REQUIRED = ("plan.json", "labels.json", "inference.json", "fingerprint.json", "config.yaml", "MODEL_CARD.md")
_SEALED_SINCE = 2
"""The format from which on the seal covers itself too."""


class FileSeal(StrictModel):
    """One file of a package as it was when the package was written."""

    bytes: int
    sha256: str


class Seal(StrictModel):
    """`package.json`: what the package is and every file that belongs to it."""

    format: int
    name: str
    version: str
    segpipe: str
    """The version of segpipe that wrote it."""
    weights: tuple[str, ...]
    """One safetensors file per network; several are an ensemble, whose logits are averaged."""
    output_slug: str
    """The grand-challenge socket that segmentations are written to."""
    files: dict[str, FileSeal]
    seal: str = ""
    """Of everything above; format 1 had none."""

    def own_digest(self) -> str:
        """What `seal` must be."""
        return digest_of(self.model_dump(mode="json", exclude={"seal"}))


def write_seal(folder: Path, name: str, version: str, weights: Iterable[str], output_slug: str) -> Seal:
    """Lists and hashes every file in `folder` into `package.json`; the last thing done to a package.

    The records of the stage contract (`stage.json`, `timing.json`, `request.json`) are no part of the package.
    """
    records = {SEAL, "stage.json", "timing.json", "request.json"}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {p.relative_to(folder).as_posix(): FileSeal(bytes=p.stat().st_size, sha256=sha256_of(p)) for p in paths}
    seal = Seal(
        format=FORMAT,
        name=name,
        version=version,
        segpipe=__version__,
        weights=tuple(weights),
        output_slug=output_slug,
        files={path: entry for path, entry in files.items() if path not in records},
    )
    seal = seal.model_copy(update={"seal": seal.own_digest()})
    write_json(folder / SEAL, seal.model_dump(mode="json"))
    return seal


def checked_seal(content: Any, place: Path) -> Seal:
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, int):
        raise DataError(f"{place}: not a model package, it names no format version")
    if found > FORMAT:
        raise DataError(f"{place}: package format {found}, this segpipe {__version__} reads up to {FORMAT}; update it")
    try:
        seal = Seal.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{place}: {first_fault(error)}") from None
    if seal.seal != ("" if seal.format < _SEALED_SINCE else seal.own_digest()):
        raise DataError(f"{place}: altered since it was packaged (its own seal differs); copy or package it again")
    unlisted = [name for name in (*REQUIRED, *seal.weights) if name not in seal.files]
    if unlisted or not seal.weights:
        raise DataError(f"{place}: does not list {', '.join(unlisted) or 'any weights'}; package it again")
    return seal


def check_files(folder: Path, seal: Seal) -> None:
    root = folder.resolve()
    for name, entry in seal.files.items():
        path = safe_join(folder, name)
        if not path.resolve().is_relative_to(root):
            raise DataError(f"{path}: a link that leaves the package; copy the package with its files, not links")
        if not path.is_file():
            raise DataError(f"{folder}: {name} is missing from the package; copy or package it again")
        if path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
            raise DataError(f"{path}: altered since it was packaged (its sha256 differs); copy or package it again")
    for path in (found for name in ("weights", "exports") for found in (folder / name).rglob("*") if found.is_file()):
        if path.relative_to(folder).as_posix() not in seal.files:
            raise DataError(f"{path}: not one of the package's files; remove it, or copy or package it again")


def first_fault(error: ValidationError) -> str:
    details = error.errors()[0]
    return f"{'.'.join(map(str, details['loc'])) or 'value'}: {details['msg']}"
