"""Preparing a case for the patch store: what lacks memory says so, and may be tried again alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.errors import DataError
from pipeline.dataset.loaded_cases import Case
from pipeline.sampling import prepare_case as prepare_case_module
from pipeline.sampling.prepare_case import Preparation, prepare_case
from tests.dataset.small_datasets import affine, dataset
from tests.preprocessing.test_preprocess import make_plan


def preparation(root: Path) -> Preparation:
    dataset(root, cases=1)
    case = Case(
        id="c0",
        subject="c0",
        images=("images/c0.nii.gz",),
        label="labels/c0.nii.gz",
        split="training",
        shape=(14, 12, 10),
        spacing_mm=(1.0, 1.0, 2.0),
        orientation="RAS",
        affine=tuple(map(tuple, affine().tolist())),
        sha256={},
    )
    return Preparation(case, root, make_plan(), root / "store", 10, 0)


def test_a_scan_larger_than_free_memory_is_data_at_fault_and_want_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the one a person reads its sentence, as the other a pool tries it once more with nothing beside it."""
    monkeypatch.setattr("pipeline.io.check_image_header.available_memory_gib", lambda: 1e-6)
    with pytest.raises(DataError, match=r"^case c0: .*/c0\.nii\.gz: its header promises 14×12×10 voxels") as raised:
        prepare_case(preparation(tmp_path))
    assert isinstance(raised.value, MemoryError)


def test_a_case_that_memory_does_not_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def conform(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(prepare_case_module, "preprocess", conform)
    with pytest.raises(MemoryError, match=r"^case c0: there is not enough memory for it$"):
        prepare_case(preparation(tmp_path))


def test_a_damaged_scan_is_no_want_of_memory(tmp_path: Path) -> None:
    work = preparation(tmp_path)
    (tmp_path / "images/c0.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"^case c0: .* the file is empty") as raised:
        prepare_case(work)
    assert not isinstance(raised.value, MemoryError)
