"""Prints an image's size as its engine reports it, then its layers: `python docker/sizes.py ENGINE TAG`.

Sizes are of unpacked files, in units of 1000 (1 MB = 10^6 bytes). buildah has no command for layers, so theirs are read
from its store, which needs the rights to do so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def main(engine: str, tag: str) -> None:
    """Two lines and one for each layer, the base image's first."""
    if engine == "buildah":
        print(_said("buildah", "images", "--format", "{{.Name}}:{{.Tag}} {{.Size}}", tag))
        lines = [f"{size / 1e6:8.1f} MB  {made_by}" for size, made_by in buildah_layers(tag)]
    else:
        print(_said(engine, "image", "inspect", "--format", "{{.Size}} bytes", tag))
        history = _said(engine, "history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", tag)
        lines = [line[:120] for line in reversed(history.splitlines()) if not line.startswith("0B")]
    print("\n".join(["layers:", *lines]))


def buildah_layers(tag: str) -> list[tuple[int, str]]:
    """Bytes of each layer, and the step that made it: buildah makes one of all steps of the last stage."""
    image = json.loads(_said("buildah", "inspect", "--type", "image", tag))["OCIv1"]
    store = json.loads(_said("buildah", "info"))["store"]
    known = json.loads((Path(store["GraphRoot"]) / f"{store['GraphDriverName']}-layers" / "layers.json").read_text())
    bytes_of = {layer.get("diff-digest"): layer.get("diff-size", 0) for layer in known}
    steps = [step.get("created_by", "") for step in image["history"] if not step.get("empty_layer")]
    return [(bytes_of[digest], step) for digest, step in zip(image["rootfs"]["diff_ids"], steps, strict=True)]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


if __name__ == "__main__":
    main(*sys.argv[1:])
