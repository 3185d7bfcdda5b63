"""`segpipe convert`: a manifest's data set written as nnU-Net raw or as a Medical Segmentation Decathlon folder."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.config import load_config
from pipeline.dataset.manifest import Manifest, data_root, read_manifest
from pipeline.layouts.convert.copy_cases import (
    PARTIAL,
    ConvertResult,
    CopyTask,
)
from pipeline.layouts.convert.write_msd import write_msd
from pipeline.layouts.convert.write_nnunet import write_nnunet
from pipeline.layouts.formats.dataset_json import NAME


def convert_dataset(source: Path, to: str, out: Path) -> ConvertResult:
    """Writes the data set of a manifest (.json) or of a configuration (.yaml) into the new folder `out`.

    to: `nnunet` or `msd`. Files are copied byte for byte wherever the layout allows it; channels on other grids are
    resampled where the configuration's `load.resample_channels` says so. A case with a file that cannot be used is left
    out by name. Raises a ConfigError for an unknown layout or a folder that is not empty, a DataError where the layout
    cannot hold the data set or no case can be used; then nothing is left in `out`.
    """
    writers = {"nnunet": write_nnunet, "msd": write_msd}
    if to not in writers:
        raise ConfigError(f"--to {to!r} is unknown; {did_you_mean(to, list(writers))}")
    is_there = out.exists()
    if is_there and (not out.is_dir() or any(path.name != PARTIAL for path in out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; give a new folder, so that nothing is mixed or overwritten")
    task = CopyTask(*_data_set(source), out)
    shutil.rmtree(task.work, ignore_errors=True)  # of a process that was killed
    try:
        result = writers[to](task)
        for path in sorted(task.work.iterdir(), key=lambda path: path.name == NAME):  # the descriptor last
            path.rename(out / path.name)
    finally:
        shutil.rmtree(task.work, ignore_errors=True)
        with suppress(OSError):  # where something was written
            if not is_there:
                out.rmdir()
    return result


def _data_set(source: Path) -> tuple[Manifest, Path, bool]:
    """The manifest, the folder its paths are relative to, and whether channels are resampled onto one grid."""
    config = load_config(source)
    manifest = read_manifest(config.data.manifest)
    return manifest, data_root(config.data.manifest, config.data.root), config.load.resample_channels
