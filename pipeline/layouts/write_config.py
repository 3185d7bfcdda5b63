"""The configuration that `init` writes: short, every key commented, and it runs as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipeline.base.files import write_text

_TEMPLATE = """\
# Made by `segpipe init`. Look first:  segpipe check {config}
# Then train, evaluate and package:    segpipe run {config}
# Every key there is, with its default: segpipe show-config {config}

name: {name}  # names the run; its folder is runs/{name}
seed: 0  # every random number follows from it (default 0)
device: auto  # auto: a GPU where there is one; or cuda, cuda:1, cpu (default auto)

data:
  manifest: {manifest}  # cases, channels, labels and folds (relative to this file)
  root: {root}  # the folder that the manifest's paths are relative to

load:
  on_fault: {on_fault}  # a case with a fatal fault: stop ends the run at once, exclude leaves it out (default stop)

train:
  network:
    name: unet  # unet, vnet, segresnet or swinunetr (default unet)
  loss:
    name: dice_ce  # Dice plus cross entropy (default dice_ce)
  budget: 30m  # wall time for training one fold; 30m is thirty minutes, 4h four hours
  folds: [0]  # folds of the cross-validation to train; all: each; full: one model on every case (default [0])
"""


def write_config(path: Path, manifest: str, root: str, exclude_faulty: bool) -> list[str]:
    """Writes the configuration of a data set; `manifest` and `root` are relative to its folder.

    A different file of that name is kept as `<name>.previous`, which the returned notes say.
    """
    text = _TEMPLATE.format(
        config=path.name,
        name=config_name(path.stem),
        manifest=_quoted(manifest),
        root=_quoted(root),
        on_fault="exclude" if exclude_faulty else "stop",
    )
    kept = path.with_name(f"{path.name}.previous")
    replaces_another = path.is_file() and path.read_bytes() != text.encode()
    if replaces_another:
        path.replace(kept)
    write_text(path, text)
    return [f"{path.name} was there already; the old one is now {kept.name}"] if replaces_another else []


def config_name(text: str) -> str:
    """A name that can be a folder: letters, digits, '.', '_' and '-', a letter or digit first."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-")
    return name or "run"


def _quoted(text: str) -> str:
    """A YAML scalar for a path: plain where nothing in it has a meaning in YAML."""
    return text if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*", text) else json.dumps(text, ensure_ascii=False)
