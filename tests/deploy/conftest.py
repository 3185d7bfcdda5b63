"""A small package and a service with it, started once for all tests that only talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packaging.small_package import small_package

if TYPE_CHECKING:
    from tests.deploy.server.running_service import Service

QUEUE = 3
LIMITS = {"SEGPIPE_QUEUE": str(QUEUE), "SEGPIPE_MAX_UPLOAD_MIB": "2", "SEGPIPE_MAX_UNPACKED_MIB": "16"}


@pytest.fixture(scope="session")
def served_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_package(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="session")
def service(served_package: Path) -> Iterator[Service]:
    from tests.deploy.server.running_service import started

    with started(served_package, **LIMITS) as running:
        yield running
        said = running.output.read_text(errors="replace")
        print(said)
    assert "Traceback" not in said, said
