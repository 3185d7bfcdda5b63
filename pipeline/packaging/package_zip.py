"""Model packages as zip files: written repeatably, and unpacked so that no archive can swell."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.base.errors import DataError
from pipeline.base.files import safe_join
from pipeline.packaging.package_seal import SEAL, FileSeal, checked_seal

_LARGEST_SEAL = 4 * 2**20


def write_zip(folder: Path, names: Iterable[str], path: Path) -> None:
    """Writes the named files of a package's folder, and its seal, as a zip whose bytes depend on their content only."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted([SEAL, *names]):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as target, (folder / name).open("rb") as source:
                while block := source.read(2**20):
                    target.write(block)


def unzip_package(path: Path, target: Path) -> None:
    """Writes the listed files of a zipped package; each at most as large as listed, so no archive can swell."""
    try:
        with zipfile.ZipFile(path) as archive:
            top = _top_folder(path, archive)
            with _member(path, archive, f"{top}{SEAL}") as stream:
                text = stream.read(_LARGEST_SEAL + 1)
            if len(text) > _LARGEST_SEAL:
                raise DataError(f"{path}: its {SEAL} is over {_LARGEST_SEAL} bytes; this is no package of segpipe")
            seal = checked_seal(json.loads(text), path / SEAL)
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
