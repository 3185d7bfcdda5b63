"""The crop, from shapes that can be checked by hand."""

from __future__ import annotations

from pipeline.planning.crop import decide_crop
from tests.planning.loaded_cases import make_case

SHAPE, SPACING = (10, 10, 10), (1.0, 1.0, 1.0)


def test_images_are_cropped_where_most_of_them_lose_a_quarter() -> None:
    """Of 10 × 10 × 10 voxels a box of 9 × 9 × 9 is 73 %, one of 10 × 10 × 8 is 80 %."""
    whole = [make_case(i, SHAPE, SPACING) for i in range(4)]
    small = [case.model_copy(update={"nonzero_shape": (9, 9, 9)}) for case in whole]
    assert decide_crop([*small[:3], whole[3]])[0] == "nonzero"
    assert decide_crop([*small[:2], *whole[2:]])[0] == "none"
    assert decide_crop([case.model_copy(update={"nonzero_shape": (10, 10, 8)}) for case in whole])[0] == "none"
    assert "has 73% of an image's voxels" in decide_crop(small)[1]
