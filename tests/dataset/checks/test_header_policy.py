"""The policy for what headers say of places is written down, and the words are those of the faults."""

from __future__ import annotations

import pytest

CODES = (
    "forms-disagree",
    "no-orientation",
    "bad-qform",
    "voxel-size",
    "unknown-form",
    "units",
    "bad-affine",
    "sheared",
)


@pytest.mark.parametrize("code", CODES)
def test_each_fault_of_a_header_has_its_row_in_the_definitions(repository, code):
    names = ("nifti_header.py", "nifti_orientation.py", "image_header.py", "check_image_header.py")
    sources = [repository / "pipeline/io" / name for name in names]
    assert any(f'"{code}"' in source.read_text(encoding="utf-8") for source in sources)
    geometry = (repository / "docs/definitions.md").read_text(encoding="utf-8").partition("## Geometry")[2]
    assert f"`{code}` |" in geometry
