"""Whatever bytes a header has, a file is read or refused with an ImageFileError: nothing else is ever raised."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from pipeline.io.image_file_error import ImageFileError
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from tests.dataset.small_datasets import scan
from tests.io.test_read_image import oblique, write_any


@pytest.mark.parametrize(
    ("name", "header_bytes"), [("a.nii", 352), ("a.nii.gz", 352), ("a.mha", 250), ("a.nrrd", 300), ("a.mgz", 284)]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_bytes_in_a_header(name: str, header_bytes: int, tmp_path: Path) -> None:
    path, rng = tmp_path / name, np.random.default_rng(0)
    write_any(path, scan(1, (5, 6, 7)), oblique())
    packed = name.endswith("gz")
    sound = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    refused = 0
    for _ in range(150):
        content = bytearray(sound)
        for place in rng.integers(0, header_bytes, rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        end = rng.integers(0, len(content)) if rng.random() < 0.3 else len(content)
        path.write_bytes(gzip.compress(content[:end], 1) if packed else content[:end])
        for read in (lambda: read_image([path]), lambda: read_label(path)):
            try:
                read()
            except ImageFileError as fault:
                assert fault.found
                assert fault.cure
                refused += 1
    assert refused > 100
