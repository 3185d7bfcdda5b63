"""The model package on disk: what it must hold, how it is sealed with hashes, and how it is opened safely.

A package is a folder, or a zip of one. `package.json` lists every file that belongs to it with size and sha256;
opening it reads all of them once, refuses an altered byte, and never touches a file that is not listed. A package
holds values only: nothing in it is ever executed or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import ValidationError

from pipeline import __version__
from pipeline.base.errors import DataError
from pipeline.base.files import digest_of, read_json, safe_join, sha256_of, write_json
from pipeline.base.strict_model import StrictModel
from pipeline.inference.inference_config import InferenceConfig
from pipeline.packaging.label_metadata import Label, read_labels
from pipeline.preprocessing.plan import Plan, read_plan

FORMAT = 2
SEAL = "package.json"
REQUIRED = ("plan.json", "labels.json", "inference.json", "fingerprint.json", "config.yaml", "MODEL_CARD.md")
_SEALED_SINCE = 2
"""The format from which on the seal covers itself too."""
_LARGEST_SEAL = 4 * 2**20


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
    settings: InferenceConfig
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
    _unzip(path, Path(unpacked.name))
    return _open_folder(Path(unpacked.name), unpacked)


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


def write_zip(package: ModelPackage, path: Path) -> None:
    """Writes the package's files, and no others, as a zip whose bytes depend on their content only."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted([SEAL, *package.seal.files]):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as target, (package.folder / name).open("rb") as source:
                while block := source.read(2**20):
                    target.write(block)


def _open_folder(folder: Path, unpacked: tempfile.TemporaryDirectory[str] | None) -> ModelPackage:
    if not (folder / SEAL).is_file():
        nested = folder / "package" / SEAL
        cure = f"did you mean {nested.parent}?" if nested.is_file() else "`segpipe package CONFIG` writes RUN/package"
        raise DataError(f"{folder}: not a model package, it has no {SEAL}; {cure}")
    seal = _checked_seal(read_json(folder / SEAL), folder / SEAL)
    _check_files(folder, seal)
    try:
        return ModelPackage(
            folder=folder,
            seal=seal,
            plan=read_plan(folder),
            weights=tuple(safe_join(folder, name) for name in seal.weights),
            settings=InferenceConfig.from_record(read_json(folder / "inference.json")),
            labels=read_labels(folder),
            fingerprint=read_json(folder / "fingerprint.json"),
            digest=digest_of(seal.model_dump(mode="json")),
            _unpacked=unpacked,
        )
    except ValidationError as error:
        raise DataError(f"{folder}: the package does not fit segpipe {__version__}: {_first(error)}") from None


def _checked_seal(content: Any, place: Path) -> Seal:
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, int):
        raise DataError(f"{place}: not a model package, it names no format version")
    if found > FORMAT:
        raise DataError(f"{place}: package format {found}, this segpipe {__version__} reads up to {FORMAT}; update it")
    try:
        seal = Seal.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{place}: {_first(error)}") from None
    if seal.seal != ("" if seal.format < _SEALED_SINCE else seal.own_digest()):
        raise DataError(f"{place}: altered since it was packaged (its own seal differs); copy or package it again")
    unlisted = [name for name in (*REQUIRED, *seal.weights) if name not in seal.files]
    if unlisted or not seal.weights:
        raise DataError(f"{place}: does not list {', '.join(unlisted) or 'any weights'}; package it again")
    return seal


def _check_files(folder: Path, seal: Seal) -> None:
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


def _unzip(path: Path, target: Path) -> None:
    """Writes the listed files of a zipped package; each at most as large as listed, so no archive can swell."""
    try:
        with zipfile.ZipFile(path) as archive:
            top = _top_folder(path, archive)
            with _member(path, archive, f"{top}{SEAL}") as stream:
                text = stream.read(_LARGEST_SEAL + 1)
            if len(text) > _LARGEST_SEAL:
                raise DataError(f"{path}: its {SEAL} is over {_LARGEST_SEAL} bytes; this is no package of segpipe")
            seal = _checked_seal(json.loads(text), path / SEAL)
            (target / SEAL).write_bytes(text)
            for name, entry in seal.files.items():
                with _member(path, archive, f"{top}{name}") as stream:
                    _copy(stream, safe_join(target, name), entry, path)
    except (zipfile.BadZipFile, zlib.error, json.JSONDecodeError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path}: the zip is damaged ({error}); copy it again") from None
    except (NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: the zip is packed or locked in a way that is not read ({error})") from None


def _top_folder(path: Path, archive: zipfile.ZipFile) -> str:
    """Empty, or `NAME/` where the zip holds one folder with the package in it."""
    places = [name for name in archive.namelist() if PurePosixPath(name).name == SEAL and name.count("/") <= 1]
    if len(places) != 1:
        raise DataError(f"{path}: not a model package, it holds {len(places)} files {SEAL} where one is due")
    return places[0].removesuffix(SEAL)


@contextmanager
def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    try:
        stream = archive.open(name)
    except KeyError:
        raise DataError(f"{path}: {name} is missing from the package; copy or package it again") from None
    with stream:
        yield stream


def _copy(stream: IO[bytes], target: Path, entry: FileSeal, archive: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), entry.bytes
    with target.open("wb") as out:
        while block := stream.read(min(2**20, left + 1)):
            left -= len(block)
            if left < 0:
                break
            digest.update(block)
            out.write(block)
    if left != 0 or digest.hexdigest() != entry.sha256:
        raise DataError(f"{archive}: {target.name} was altered since it was packaged; copy or package it again")


def _first(error: ValidationError) -> str:
    details = error.errors()[0]
    return f"{'.'.join(map(str, details['loc'])) or 'value'}: {details['msg']}"
