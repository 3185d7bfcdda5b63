"""Opening a package: every byte is checked, and no name in it reaches outside it."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from pipeline.base.errors import DataError
from pipeline.packaging.model_package import load_package
from pipeline.packaging.package_seal import SEAL, Seal
from pipeline.packaging.package_zip import write_zip
from tests.packaging.finished_stages import package_of_stages


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package_of_stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture
def package(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "package"))


def _edit_seal(package: Path, **changes: object) -> None:
    """As somebody who knows how it is sealed."""
    content = {**json.loads((package / SEAL).read_text(encoding="utf-8")), **changes}
    content["seal"] = Seal.model_validate(content).own_digest()
    (package / SEAL).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change", [{"version": "9.0.0"}, {"output_slug": "other"}, {"weights": ["weights/fold_0.safetensors"] * 2}]
)
def test_an_altered_value_of_the_seal_itself_is_refused(package: Path, change: dict[str, object]) -> None:
    content = json.loads((package / SEAL).read_text(encoding="utf-8"))
    (package / SEAL).write_text(json.dumps({**content, **change}))
    with pytest.raises(DataError, match=r"package\.json: altered since it was packaged"):
        load_package(package)


def test_a_package_of_the_first_format_which_had_no_seal_of_its_own_opens(package: Path) -> None:
    content = json.loads((package / SEAL).read_text(encoding="utf-8"))
    del content["seal"]
    (package / SEAL).write_text(json.dumps({**content, "format": 1}))
    assert load_package(package).name


def test_one_altered_byte_in_any_file_is_refused_by_name(package: Path) -> None:
    for name in load_package(package).seal.files:
        path = package / name
        original = path.read_bytes()
        path.write_bytes(bytes([original[0] ^ 1]) + original[1:])
        with pytest.raises(DataError, match="altered"):
            load_package(package)
        path.write_bytes(original)
    load_package(package)


def test_a_missing_file_is_named(package: Path) -> None:
    (package / "weights" / "fold_0.safetensors").unlink()
    with pytest.raises(DataError, match=r"weights/fold_0.safetensors is missing"):
        load_package(package)


def test_a_future_format_is_refused_with_the_cure(package: Path) -> None:
    _edit_seal(package, format=99)
    with pytest.raises(DataError, match=r"package format 99.*reads up to 2; update"):
        load_package(package)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd", "weights/../../outside.txt"])
def test_a_listed_path_that_leaves_the_package_is_refused(package: Path, name: str) -> None:
    files = json.loads((package / SEAL).read_text(encoding="utf-8"))["files"]
    _edit_seal(package, files={name: next(iter(files.values())), **files})
    with pytest.raises(DataError, match="leaves its folder"):
        load_package(package)


def test_a_link_that_leaves_the_package_is_refused(package: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    shutil.move(package / "labels.json", outside)
    (package / "labels.json").symlink_to(outside)
    with pytest.raises(DataError, match="a link that leaves the package"):
        load_package(package)


def test_unlisted_files_are_not_part_of_it(package: Path, tmp_path: Path) -> None:
    (package / "notes.txt").write_text("mine")
    opened = load_package(package)
    write_zip(opened.folder, opened.seal.files, tmp_path / "model.zip")
    assert "notes.txt" not in zipfile.ZipFile(tmp_path / "model.zip").namelist()


def test_a_zip_with_a_folder_around_the_package_opens(package: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path, "package")
    assert load_package(Path(archive)).digest == load_package(package).digest


def test_a_zip_whose_entry_swells_beyond_its_listed_size_is_refused(package: Path, tmp_path: Path) -> None:
    """A bomb: `labels.json` inflates to 64 MiB; reading stops one block after the listed size."""
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in package.rglob("*"):
            if path.is_file() and path.name != "labels.json":
                archive.write(path, path.relative_to(package))
        archive.writestr("labels.json", bytes(64 * 2**20))
    with pytest.raises(DataError, match=r"labels\.json was altered"):
        load_package(bomb)


def test_a_damaged_zip_is_a_data_error(package: Path, tmp_path: Path) -> None:
    write_zip(package, load_package(package).seal.files, tmp_path / "model.zip")
    data = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "model.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"model\.zip"):
        load_package(tmp_path / "model.zip")


def test_a_zip_with_altered_bytes_is_a_data_error_wherever_they_are(package: Path, tmp_path: Path) -> None:
    write_zip(package, load_package(package).seal.files, tmp_path / "model.zip")
    data = (tmp_path / "model.zip").read_bytes()
    for place in range(60, len(data), max(len(data) // 40, 1)):
        (tmp_path / "model.zip").write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            load_package(tmp_path / "model.zip")  # bytes that nothing is read from, such as dates, may differ
        except DataError as error:
            assert "model.zip" in str(error) or "altered" in str(error)


def test_a_network_that_was_put_beside_the_packages_own_is_refused(package: Path) -> None:
    (package / "exports").mkdir(exist_ok=True)
    (package / "exports" / "fold_0.onnx").write_bytes(b"another network")
    with pytest.raises(DataError, match=r"fold_0\.onnx: not one of the package's files"):
        load_package(package)


def test_a_run_folder_is_answered_with_the_package_in_it(package: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean .*/package\?"):
        load_package(package.parent)


def test_a_path_that_is_nothing_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such model package"):
        load_package(tmp_path / "nothing")
