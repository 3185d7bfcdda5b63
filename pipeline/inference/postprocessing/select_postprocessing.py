"""`infer.postprocess: auto`: which steps help, seen on the predictions of cross-validation and nowhere else.

Every case is read once: what a structure's components have in common with the reference tells the Dice after any
removal, so that all steps are weighed without being done. Then the chosen ones are done together and measured again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import write_json
from pipeline.inference.postprocessing.binary_masks import structure_mask
from pipeline.inference.postprocessing.component_statistics import (
    ComponentStats,
    LabelPair,
    StructureStats,
    not_ignored,
    read_pair,
)
from pipeline.inference.postprocessing.postprocess import postprocess
from pipeline.inference.predictor_config import PostprocessConfig
from pipeline.preprocessing.plan import Plan

log = logging.getLogger(__name__)

SMALLEST_GAIN = 1e-4
"""A rise of the mean Dice below this is no help, whatever its sign."""
FEWEST_CASES = 3
"""What helps on fewer validation cases may be their chance."""
VOLUMES_ML = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Least volumes that are tried; few and far apart, so that none fits the validation cases by chance."""


@dataclass(frozen=True)
class SelectedSteps:
    """The steps to do, and for each structure what was seen, as JSON."""

    settings: PostprocessConfig
    structures: dict[str, dict[str, Any]]


def dice_after(pair: LabelPair, settings: PostprocessConfig, plan: Plan) -> dict[str, float]:
    """Dice of each structure once all steps were done to a prediction; nothing on both sides counts as 1."""
    pred, ref = read_pair(pair)
    valid = not_ignored(ref.array, plan)
    done = postprocess(pred, settings, plan).array
    return {name: _dice(done, ref.array, values, valid) for name, values in plan.structures.items()}


def select_steps(seen: Sequence[Mapping[str, StructureStats]]) -> SelectedSteps:
    """For each structure the steps that raise its mean Dice over the cases and help more of them than they harm.

    None where there are fewer than FEWEST_CASES. Holes are tried first; then, with or without them filled, the largest
    component and each of VOLUMES_ML.
    """
    fill, largest, volumes = list[str](), list[str](), dict[str, float]()
    structures: dict[str, dict[str, Any]] = {}
    for name in seen[0] if seen else ():
        plain, filled = [case[name].plain for case in seen], [case[name].filled for case in seen]
        before = _after(plain, None)
        fills = _helps(before, _after(filled, None))
        pieces = filled if fills else plain
        base = _after(pieces, None)
        removals = {removal: _after(pieces, removal) for removal in (*VOLUMES_ML, np.inf)}
        helping = {removal: dice for removal, dice in removals.items() if _helps(base, dice)}
        best = max(helping, key=lambda removal: helping[removal].mean(), default=None)
        fill += [name] if fills else []
        largest += [name] if best == np.inf else []
        volumes |= {name: best} if best is not None and best != np.inf else {}
        structures[name] = {
            "dice": float(before.mean()),
            "tried": {
                "fill_holes": float(_after(filled, None).mean()),
                "largest_component": float(removals[np.inf].mean()),
                "min_volume_ml": {f"{volume:g}": float(removals[volume].mean()) for volume in VOLUMES_ML},
            },
        }
    settings = PostprocessConfig(fill_holes=tuple(fill), largest_component=tuple(largest), min_volume_ml=volumes)
    return SelectedSteps(settings, structures)


def verify_selection(
    choice: SelectedSteps, before: Sequence[Mapping[str, StructureStats]], after: Sequence[Mapping[str, float]]
) -> SelectedSteps:
    """The choice with what it gained when done together; no steps at all where a structure lost by others' steps."""
    structures, harmed = {}, list[str]()
    for name, entry in choice.structures.items():
        was = _after([case[name].plain for case in before], None)
        found = np.array([case[name] for case in after])
        harmed += [name] if found.mean() < was.mean() else []
        counts = {"better": int((found > was).sum()), "worse": int((found < was).sum())}
        gain = {"dice_after": float(found.mean()), "gain": float((found - was).mean())}
        structures[name] = {**entry, **gain, **counts}
    if not harmed:
        return SelectedSteps(choice.settings, structures)
    unchanged = {name: entry | {"harmed_by_others": name in harmed} for name, entry in structures.items()}
    return SelectedSteps(PostprocessConfig(), unchanged)


def describe_steps(settings: PostprocessConfig, name: str) -> list[str]:
    """The steps that are done to one structure, in words."""
    words = ["holes filled"] if name in settings.fill_holes else []
    words += ["largest component kept"] if name in settings.largest_component else []
    least = settings.min_volume_ml.get(name)
    return words + ([] if least is None else [f"components under {least:g} ml removed"])


def _after(pieces: Sequence[ComponentStats], removal: float | None) -> NDArray[np.float64]:
    return np.array([piece.after(removal) for piece in pieces])


def _helps(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    gain = after - before
    return bool(len(gain) >= FEWEST_CASES and gain.mean() >= SMALLEST_GAIN and (gain > 0).sum() > (gain < 0).sum())


def _dice(pred: NDArray, ref: NDArray, values: tuple[int, ...], valid: NDArray) -> float:
    mask, reference = structure_mask(pred, values) & valid, structure_mask(ref, values) & valid
    total = int(mask.sum()) + int(reference.sum())
    return 2 * int((mask & reference).sum()) / total if total else 1.0


def log_selection(choice: SelectedSteps, count: int) -> None:
    if count < FEWEST_CASES:
        found = f"{count} validation case(s) with a reference, and it is chosen on {FEWEST_CASES} or more"
        log.warning("infer     postprocessing: %s, so nothing is done", found)
        return
    steps = {name: ", ".join(describe_steps(choice.settings, name)) for name in choice.structures}
    for name, words in steps.items():
        if words:
            seen = choice.structures[name]
            log.info(
                "infer     postprocessing of %s: %s; mean Dice %.4f, %.4f without (of %d cases %d better, %d worse)",
                name, words, seen["dice_after"], seen["dice"], count, seen["better"], seen["worse"],
            )  # fmt: skip
    if not any(steps.values()):
        log.info("infer     postprocessing: no step helps on the %d validation cases, so nothing is done", count)


def write_selection(out: Path, settings: PostprocessConfig | Literal["none", "auto"], seen: dict[str, Any]) -> None:
    """`postprocess.json`: what is done to every prediction (`applied`), and on which grounds."""
    none = PostprocessConfig()
    applied = "none" if isinstance(settings, str) or settings == none else settings.model_dump(mode="json")
    write_json(out / "postprocess.json", {"applied": applied, **seen})
