"""The configuration that `init` writes: short, every key commented, and it runs as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

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


def config_text(path: Path, manifest: str, root: str, exclude_faulty: bool) -> str:
    """The configuration of a data set, to be written to `path`; `manifest` and `root` are relative to its folder."""
    return _TEMPLATE.format(
        config=path.name,
        name=_quoted(config_name(path.stem)),
        manifest=_quoted(manifest),
        root=_quoted(root),
        on_fault="exclude" if exclude_faulty else "stop",
    )


def config_name(text: str) -> str:
    """A name that can be a folder: letters, digits, '.', '_' and '-', a letter or digit first."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-")
    return name or "run"


def _quoted(text: str) -> str:
    """A YAML scalar for a text: plain where YAML reads it as that text (and not as a number, a date, true, ...)."""
    plain = re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*", text) and yaml.safe_load(text) == text
    try:
        float(text)  # 1e5 is a number to some readers of YAML and a text to others
    except ValueError:
        return text if plain else json.dumps(text, ensure_ascii=False)
    return json.dumps(text)
