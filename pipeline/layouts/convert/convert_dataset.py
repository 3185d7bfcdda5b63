"""`segpipe convert`: a manifest's data set written as nnU-Net raw or as a Medical Segmentation Decathlon folder."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.config.yaml_source import read_yaml
from pipeline.dataset.manifest import Manifest, read_manifest
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
    if source.suffix.lower() == ".json":
        manifest = read_manifest(source)
        return manifest, source.absolute().parent / (manifest.root or ""), False
    values = read_yaml(source).values
    data, load = values.get("data"), values.get("load")
    if not isinstance(data, dict) or not isinstance(data.get("manifest"), str):
        raise ConfigError(f"{source}: has no data.manifest; name the manifest itself")
    near = source.absolute().parent
    manifest_path = near / data["manifest"]
    manifest = read_manifest(manifest_path)
    root = near / str(data["root"]) if data.get("root") else manifest_path.parent / (manifest.root or "")
    return manifest, root, isinstance(load, dict) and load.get("resample_channels") is True
