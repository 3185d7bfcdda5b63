"""Stage `sample`: where do patches come from?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.base.files import write_json
from pipeline.base.runtime import Runtime
from pipeline.base.stage import Stage
from pipeline.base.strict import Strict

if TYPE_CHECKING:
    from pipeline.data.plan import Plan

log = logging.getLogger(__name__)

_PREVIEWED = 8


class SampleConfig(Strict):
    """How prepared cases are kept and how they are divided into folds."""

    store: Literal["ram", "disk", "auto"] = "auto"
    """Where training reads patches from: ram, disk (memory-mapped), or auto: a GPU's memory where training leaves room
    there, else ram if the store takes under half of what is free. On disk it is in any case."""
    folds: int = Field(default=5, ge=2)
    """Folds where the manifest gives none; fewer if there are fewer subjects."""
    locations_per_class: int = Field(default=5000, ge=1)
    """Voxels of each structure per case, drawn once, on which oversampled patches are centred."""
    seed: int = Field(default=0, ge=0)
    """Of the folds and the locations; apart from the run's seed, so that runs of other seeds share their folds."""


class SampleReads(Strict):
    """All of the configuration that sampling reads."""

    sample: SampleConfig


def run(config: SampleReads, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:
    """Writes the patch store, folds.json and preview.png.

    Raises a DataError where the disk has no room for the store (before writing it) or a case cannot be prepared.
    """
    from pipeline.data.cases import data_root, read_cases
    from pipeline.data.folds import make_folds
    from pipeline.data.labels import index_type
    from pipeline.data.plan import read_plan
    from pipeline.data.prepare import Preparation, prepare_case, stored_bytes
    from pipeline.data.store import require_disk, write_index
    from pipeline.executors import map_cases

    settings, plan = config.sample, read_plan(inputs["plan"])
    cases, root = read_cases(inputs["load"]).training(), data_root(inputs["load"])
    folds = make_folds(cases, settings.folds, settings.seed)
    write_json(out / "folds.json", folds)
    log.info("%s", _said(folds, settings.folds, len({case.subject for case in cases})))

    store = out / "store"
    store.mkdir(exist_ok=True)
    needed, free = require_disk(store, (stored_bytes(case, plan) for case in cases))
    log.info("patch store: %.2f GiB expected, %.1f GiB free on disk", needed, free)
    work = [Preparation(case, root, plan, store, settings.locations_per_class, settings.seed) for case in cases]
    entries = dict(map_cases(prepare_case, work, runtime, "preparing"))
    write_index(store, entries, settings.store, index_type(plan.structures, plan.overlapping))
    _preview(store, plan, out / "preview.png")


def _said(folds: Mapping[str, Any], wanted: int, subjects: int) -> str:
    """The folds in a sentence, and why they are fewer than wanted."""
    sizes = ", ".join(str(len(fold["val"])) for fold in folds["folds"])
    if not sizes:
        why = "there is one subject" if subjects == 1 else "the manifest puts all subjects into one"
        return f"no folds, since {why}: only train.folds: full can be trained"
    said = f"folds ({folds['source']}), validation cases in each: {sizes}"
    if folds["source"] == "made" and len(folds["folds"]) < wanted:
        said += f"; {len(folds['folds'])} folds instead of {wanted}, since there are {subjects} subjects"
    return said


def _preview(store_folder: Path, plan: Plan, path: Path) -> None:
    """Draws some patches as training will, and says where it reads them from, unless a GPU has room for them."""
    from pipeline.data.patches import draw_batch
    from pipeline.data.preview import draw_preview
    from pipeline.data.store import open_store

    store = open_store(store_folder)
    batch = draw_batch(store, store.ids, plan.patch_size, min(_PREVIEWED, len(store.ids)), seed=0, step=0, oversample=1)
    draw_preview(path, batch, len(plan.structures))
    log.info("patches are read from %s: %s", store.where, store.reason)


STAGE = Stage(
    name="sample",
    version=1,
    config=SampleReads,
    reads={"sample": "sample"},
    inputs=("load", "plan"),
    promises=("folds.json", "store/store.json", "store/*.image.npy", "store/*.locations.npz", "preview.png"),
    run=run,
    undigested={"preview.png": ()},
)
