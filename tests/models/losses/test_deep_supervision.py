"""Labels at the size of coarser outputs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pipeline.models.losses.deep_supervision import downsample_label


def test_a_label_is_reduced_to_its_nearest_voxels_bit_by_bit():
    """40 overlapping structures are more bits than a float holds; and 2³² - 1, which is ignored, is no float32."""
    label = torch.arange(2 * 8 * 6 * 5).view(2, 8, 6, 5) + (1 << 39)
    label[0, 1, 1, 2] = 2**32 - 1
    coarse = downsample_label(label, torch.empty(2, 3, 4, 3, 5))
    assert torch.equal(coarse, label[:, 1::2, 1::2])
    assert coarse.dtype == torch.int64 and coarse[0, 0, 0, 2] == 2**32 - 1


@pytest.mark.parametrize("size", [(4, 4, 4), (3, 5, 2), (8, 1, 7), (16, 9, 8)])
def test_nearest_is_what_torch_takes_for_it(size):
    label = torch.randint(0, 200, (2, 8, 9, 7), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    expected = F.interpolate(label[:, None].float(), size, mode="nearest-exact")[:, 0].to(torch.uint8)
    assert torch.equal(downsample_label(label, torch.empty(2, 3, *size)), expected)
