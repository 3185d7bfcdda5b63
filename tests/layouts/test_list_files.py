"""Walking a data set's folder: linked folders once, and none that cannot be opened is taken for empty."""

import gzip
import os

import pytest

from pipeline.base.errors import DataError
from pipeline.layouts.list_files import files_below, folders_below, image_files
from tests.layouts.small_layouts import image


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in files_below(folder))


def test_a_linked_folder_is_walked_under_its_link(tmp_path):
    image(tmp_path / "archive/c1.nii.gz")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images").symlink_to(tmp_path / "archive")
    assert names(tmp_path / "data") == ["images/c1.nii.gz"]


def test_links_back_and_second_links_lead_to_nothing_twice(tmp_path):
    data = tmp_path / "data"
    image(data / "images/c1.nii.gz")
    image(tmp_path / "archive/c2.nii.gz")
    (data / "a_before_images").symlink_to(data / "images")
    (data / "images/top").symlink_to(data)
    (data / "images/up").symlink_to(tmp_path)
    for link in ("linked", "linked_again"):
        (data / link).symlink_to(tmp_path / "archive")
    assert names(data) == ["images/c1.nii.gz", "linked/c2.nii.gz"]


def test_hidden_folders_are_not_walked_but_links_into_them_are(tmp_path):
    """As in a data set whose files a program keeps in a folder of its own."""
    image(tmp_path / ".store/x/c1.nii.gz")
    image(tmp_path / "__MACOSX/c1.nii.gz")
    (tmp_path / "images").symlink_to(tmp_path / ".store/x")
    assert names(tmp_path) == ["images/c1.nii.gz"]


def test_a_folder_that_cannot_be_opened_is_said(tmp_path, monkeypatch):
    (tmp_path / "labels").mkdir()
    scandir = os.scandir

    def refusing(place):
        if os.fspath(place).endswith("labels"):
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"a folder in it cannot be opened \(Permission denied\)"):
        list(folders_below(tmp_path))


def test_a_folder_whose_files_cannot_be_reached_is_said(tmp_path, monkeypatch):
    """Its names can be read, and looking at any of them is refused."""
    folder = tmp_path / "two words"
    image(folder / "labels/c1.nii.gz")
    monkeypatch.setattr(os, "access", lambda place, mode: not os.fspath(place).endswith("labels"))
    with pytest.raises(
        DataError, match=r"cannot be opened \(Permission denied\).*find -L '\S*/two words' -type d"
    ) as said:
        list(files_below(folder))
    assert r"! \( -readable -executable \)" in str(said.value)


def test_a_file_that_lies_there_packed_and_unpacked_counts_once(tmp_path):
    packed = image(tmp_path / "c1.nii.gz")
    image(tmp_path / "c1.nii")  # of other voxels, which its name seeds
    assert len(image_files(tmp_path)) == 2
    other = tmp_path / "again"
    other.mkdir()
    (other / "c1.nii.gz").write_bytes(packed.read_bytes())
    (other / "c1.nii").write_bytes(gzip.decompress(packed.read_bytes()))
    assert [path.name for path in image_files(other)] == ["c1.nii.gz"]
