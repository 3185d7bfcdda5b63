"""Stage `sample`: where do patches come from?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.files import write_json
from pipeline.base.machine import Runtime
from pipeline.dataset.folds import given_folds, make_folds
from pipeline.dataset.label_encoding import index_type
from pipeline.dataset.loaded_cases import Case, read_cases, require_recorded_root
from pipeline.parallel.map_cases import map_cases
from pipeline.preprocessing.plan import read_plan
from pipeline.sampling.patch_preview import preview_store
from pipeline.sampling.patch_store import write_index
from pipeline.sampling.prepare_case import Preparation, prepare_case
from pipeline.sampling.store_size import require_disk, stored_bytes
from pipeline.stages.stage_configs import SampleStageConfig

log = logging.getLogger(__name__)


def run(config: SampleStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:
    """Writes the patch store, folds.json and preview.png.

    Raises a DataError where the disk has no room for the store (before writing it) or a case cannot be prepared.
    """

    settings, plan = config.sample, read_plan(inputs["plan"])
    loaded, root = read_cases(inputs["load"]), require_recorded_root(inputs["load"])
    cases = loaded.training()
    folds = make_folds(cases, settings.folds, settings.seed)
    write_json(out / "folds.json", folds)
    log.info("%s", _said(folds, settings.folds, cases))

    store = out / "store"
    store.mkdir(exist_ok=True)
    needed, free = require_disk(store, (stored_bytes(case, plan) for case in cases))
    log.info("patch store: %.2f GiB expected, %.1f GiB free on disk", needed, free)
    shared = (root, plan, store, settings.locations_per_class, settings.seed, loaded.grid_tolerance_mm)
    work = [Preparation(case, *shared) for case in cases]
    entries = dict(map_cases(prepare_case, work, runtime, "preparing"))
    write_index(store, entries, settings.store, index_type(plan.structures, plan.overlapping))
    preview_store(store, plan, out / "preview.png")


def _said(folds: Mapping[str, Any], wanted: int, cases: Sequence[Case]) -> str:
    """The folds in a sentence, and why they are fewer than wanted or other than the manifest's."""
    subjects, given = len({case.subject for case in cases}), given_folds(cases)
    sizes = ", ".join(str(len(fold["val"])) for fold in folds["folds"])
    if not sizes:
        why = "there is one subject" if subjects == 1 else "all subjects there are stand in one of the manifest's"
        return f"no folds, since {why}: only train.folds: full can be trained"
    said = f"folds ({folds['source']}), validation cases in each: {sizes}"
    if folds["source"] == "made" and len(folds["folds"]) < wanted:
        said += f"; {len(folds['folds'])} folds instead of {wanted}, since there are {subjects} subjects"
    if given != list(range(len(given))):
        numbers = ", ".join(map(str, given))
        said += f"; the manifest's folds {numbers} are counted from 0 to {len(given) - 1}, as no case is in the others"
    return said
