"""Messages to clients, without the folders and file names of the server."""

from __future__ import annotations

from pathlib import Path

from pipeline.deploy.server.unpack_upload import SCAN, Upload


def without_server_paths(message: str, folder: Path, upload: Upload) -> str:
    """A message without our own names: those of temporary folders, and that of the only file."""
    if len(upload.images) == 1:
        message = message.removeprefix(f"{upload.images[0]}: ")
    return message.replace(f"{folder}/{SCAN}/", "").replace(f"{folder}/", "")
