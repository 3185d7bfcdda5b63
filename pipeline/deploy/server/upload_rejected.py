"""The refusal of an upload: an HTTP status and a sentence."""

from __future__ import annotations


class UploadRejected(Exception):
    """An upload that is not taken: an HTTP status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
