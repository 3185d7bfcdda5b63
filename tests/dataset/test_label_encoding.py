"""Label values to indices and back, for any values with any gaps, regions and ignored voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.dataset.label_encoding import ignore_index, index_type, labels_to_indices, written_values
from pipeline.models.losses.build_loss import build_loss
from pipeline.models.losses.loss_config import CrossEntropyConfig
from pipeline.sampling.cut_patches import cut_batch, cut_with_margin
from pipeline.sampling.patch_locations import PatchLocation
from pipeline.sampling.patch_store import open_store, write_case, write_index
from pipeline.training.validation import LabelTables, dice_per_structure, shown_label

GAPS = {"a": (5,), "b": (100,), "c": (201,)}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_values_with_gaps_come_back(dtype: type) -> None:
    values = np.array([[0, 5, 100], [201, 5, 0]], np.int64).astype(dtype)
    indices = labels_to_indices(values, GAPS)
    assert indices.tolist() == [[0, 1, 2], [3, 1, 0]]
    assert indices.dtype == np.uint8
    written = np.array([0, *written_values(GAPS).values()])
    assert written[indices].tolist() == values.tolist()


@pytest.mark.parametrize("values", [[-3, 0, 7, 70_000], [0, 7, 70_000, 2**31 - 1], [0, 7, 8, 9]])
def test_large_and_negative_values_are_told_apart(values: list[int]) -> None:
    structures = {"seven": (7,), "large": (70_000,)}
    expected = [{7: 1, 70_000: 2}.get(value, 0) for value in values]
    assert labels_to_indices(np.array(values), structures).tolist() == expected


def test_a_region_of_exclusive_structures_is_one_index() -> None:
    structures = {"whole": (1, 2, 4), "other": (3,)}
    assert labels_to_indices(np.array([0, 1, 2, 3, 4]), structures).tolist() == [0, 1, 1, 2, 1]


def test_overlapping_regions_are_bits() -> None:
    structures = {"whole": (1, 2, 4), "core": (1, 4), "enhancing": (4,)}
    assert labels_to_indices(np.array([0, 1, 2, 4]), structures, overlapping=True).tolist() == [0, 0b011, 0b001, 0b111]


@pytest.mark.parametrize("overlapping", [False, True])
def test_ignored_voxels_have_the_largest_number(overlapping: bool) -> None:
    indices = labels_to_indices(np.array([0, 5, 255, 9]), GAPS, ignore_value=255, overlapping=overlapping)
    assert indices[2] == ignore_index(GAPS, overlapping) == 255
    assert indices[3] == 0


@pytest.mark.parametrize(
    ("count", "overlapping", "dtype"),
    [(254, False, np.uint8), (255, False, np.uint16), (7, True, np.uint8), (8, True, np.uint16), (62, True, np.uint64)],
)
def test_no_index_is_the_ignore_mark(count: int, overlapping: bool, dtype: type) -> None:
    structures = {f"s{i}": (i + 1,) for i in range(count)}
    assert index_type(structures, overlapping) == dtype
    largest = 2**count - 1 if overlapping else count
    assert largest < ignore_index(structures, overlapping)


@pytest.mark.parametrize("count", [7, 8, 31, 32, 62])
def test_ignored_voxels_stay_ignored_from_the_file_to_loss_and_score(count: int, tmp_path: Path) -> None:
    """Eight voxels, half of them ignored; patches hold masks of 32 bits and more as signed numbers."""
    structures = {f"s{i}": (i + 1,) for i in range(count)}
    values = np.array([0, 1, count, 2, 255, 255, 255, 255]).reshape(2, 2, 2)
    label, mark = (
        labels_to_indices(values, structures, 255, overlapping=True),
        ignore_index(structures, overlapping=True),
    )
    entry = write_case(tmp_path, "a", "a", np.zeros((1, 2, 2, 2), np.float32), label, {}, {})
    write_index(tmp_path, {"a": entry}, "disk", label.dtype)
    place, size = PatchLocation("a", (0, 0, 0)), (2, 2, 2)
    store = open_store(tmp_path)
    cut, stored = cut_batch(store, [place], size).label_BXYZ, torch.as_tensor(store.label("a")).long()
    for patch in (cut[0], cut_with_margin(store, place, size).label, stored):
        assert (patch == mark).flatten().tolist() == [False] * 4 + [True] * 4
    loss = build_loss(CrossEntropyConfig(), count, overlapping=True, ignore=mark)
    logits = torch.randn((1, count, 2, 2, 2), generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(logits, cut), logits)
    assert (gradient[:, :, 0] != 0).all() and (gradient[:, :, 1] == 0).all()
    labelling = LabelTables(tuple(structures), overlapping=True, ignore=mark)
    assert torch.equal(shown_label(stored, labelling)[1], torch.zeros((2, 2), dtype=torch.long))
    found = stored.masked_fill(stored == mark, 1)
    dice = dice_per_structure(found, stored, labelling)
    assert [dice[0], dice[1], dice[-1]] == [1, 1, 1]
