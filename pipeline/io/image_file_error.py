"""The error of an image file that cannot be used, and the faults that several formats share."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import DataError, TooLargeError

LARGER_THAN_MEMORY = "larger-than-memory"


class ImageFileError(DataError):
    """A file that cannot be used: `found` says what is wrong, `cure` what to do, `code` names the kind of fault."""

    def __init__(self, path: Path, code: str, found: str, cure: str) -> None:
        super().__init__(path, code, found, cure)
        self.path, self.code, self.found, self.cure = path, code, found, cure

    def __str__(self) -> str:
        return f"{self.path}: {self.found}; {self.cure}"


class LargerThanMemory(ImageFileError, TooLargeError):
    """A file of more voxels than fit into the memory that is free."""


def truncated(path: Path, promised: int, held: int) -> ImageFileError:
    """The fault of a file that ends before its voxels do."""
    return ImageFileError(
        path,
        "truncated",
        f"its header promises {promised:,} bytes of voxels, the file holds {held:,}: it is truncated",
        "copy or download it again (its source has the rest)",
    )


def bad_header(path: Path, why: str) -> ImageFileError:
    """The fault of a header that makes no sense."""
    return ImageFileError(
        path, "bad-header", f"its header is damaged: {why}", "copy it again, or write it anew from its source"
    )
