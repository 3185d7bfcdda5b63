"""The manifest: what is written is read again, and every fault of a file is named at once with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.base.errors import DataError
from pipeline.dataset.manifest import read_manifest, write_manifest
from tests.dataset.small_datasets import manifest


def written(folder: Path, **changes: object) -> Path:
    content = {"format": "segpipe-manifest/1"} | manifest(3).model_dump(mode="json") | changes
    path = folder / "manifest.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    full = manifest(3, ignore_label=9, overlapping=True, labels={"whole": [1, 2, 4], "core": [1, 4]}, licence="CC0-1.0")
    write_manifest(tmp_path / "m.json", full)
    assert read_manifest(tmp_path / "m.json") == full
    assert next(iter(json.loads((tmp_path / "m.json").read_text(encoding="utf-8")))) == "format"


def test_all_faults_are_named_at_once_with_file_and_place(tmp_path: Path) -> None:
    cases = [
        {"id": "a", "images": ["a.nii.gz"], "lable": "a.nii.gz"},
        {"id": "b", "images": [], "split": "validation"},
        {"images": ["c.nii.gz"], "fold": -1},
    ]
    path = written(tmp_path, cases=cases)
    with pytest.raises(DataError) as error:
        read_manifest(path)
    text = str(error.value)
    assert text.startswith(f"{path} has 5 problems")
    assert "cases[0].lable (case a)  unknown key; did you mean 'label'?" in " ".join(text.split(" " * 2)).replace(
        "   ", "  "
    )
    for place in ("cases[1].images (case b)", "cases[1].split (case b)", "cases[2].id", "cases[2].fold"):
        assert place in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"a": 1, "b": 1}}, "label value 1 belongs to 2 structures; set overlapping: true"),
        ({"labels": {"background": 0, "a": 1}}, "label value 0 is background and cannot be a structure"),
        ({"labels": {"a": -1}}, "label values cannot be negative"),
        ({"ignore_label": 2}, "ignore_label 2 is a structure too"),
        ({"cases": [{"id": "a", "images": ["a"]}, {"id": "a", "images": ["b"]}]}, "the case id 'a' stands 2 times"),
        ({"channels": []}, "channels"),
    ],
)
def test_contradictions_are_refused(changes: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json has 1 problem") as error:
        read_manifest(written(tmp_path, **changes))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a JSON file"),
        ("[]", "not a segpipe manifest"),
        ('{"name": "x"}', "`segpipe init FOLDER -o CONFIG` writes one"),
    ],
)
def test_another_file_is_told_apart(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_manifest(tmp_path / "m.json")
    assert words in str(error.value)
    assert "m.json" in str(error.value)
