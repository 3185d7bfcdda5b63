"""What was done to the label maps after the network, on which grounds, and what it gained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.format_numbers import number, plural
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.html_table import table

_COLUMNS = ("structure", "done", "Dice before", "after", "gain", "better in", "worse in", "best of those tried")


def chosen_on_scored(postprocess: Mapping[str, Any]) -> bool:
    """Whether steps were chosen on the validation cases, whose scores then include that choice."""
    return postprocess.get("asked") == "auto" and postprocess.get("applied") != "none"


def postprocessing_section(postprocess: Mapping[str, Any]) -> Html:
    """From `infer/postprocess.json`: what is applied; with `auto` what each structure gained, and what was tried."""
    if not postprocess:
        return Html("")
    applied, asked = postprocess.get("applied"), postprocess.get("asked")
    steps = applied if isinstance(applied, dict) else {}
    if asked != "auto":
        return join([tag("p", "None was asked for: scored is what the network made.")] if not steps else _fixed(steps))
    cases, fewest = int(postprocess.get("cases", 0)), int(postprocess.get("fewest_cases", 0))
    count = plural(cases, "validation case")
    if cases < fewest:
        few = f"{count} {'is' if cases == 1 else 'are'} too few to choose it on"
        told = tag("p", f"Asked for (auto), but {few} ({fewest} are needed), so nothing is done.")
    elif not steps:
        told = tag("p", f"Looked for on {count} (auto): no step helps, so nothing is done.")
    else:
        told = tag(
            "p",
            f"Chosen on {count} (auto), each segmented by a network that had not seen it. The scores of these cases "
            "include the choice; those of testing cases do not. Here a structure absent on both sides counts as 1.",
        )
    rows = [_row(name, entry, steps) for name, entry in postprocess.get("structures", {}).items()]
    return join([told, table(_COLUMNS, rows, "figures") if rows else None])


def _fixed(steps: Mapping[str, Any]) -> list[Html]:
    names = list(dict.fromkeys(name for some in steps.values() for name in some))
    rows = [[name, ", ".join(_steps_of(steps, name))] for name in names]
    return [tag("p", "As configured, the same for all cases:"), table(_COLUMNS[:2], rows, "facts")]


def _row(name: str, entry: Mapping[str, Any], steps: Mapping[str, Any]) -> list[object]:
    done = ", ".join(_steps_of(steps, name)) or "nothing"
    gain = entry.get("gain")
    sign = "+" if gain is not None and gain > 0 else ""
    figures = [number(entry.get("dice"), 4), number(entry.get("dice_after"), 4), sign + number(gain, 4)]
    counts = [entry.get("better", "–"), entry.get("worse", "–")]
    return [name, done, *(figures if gain is not None else [figures[0], "–", "–"]), *counts, _best(entry)]


def _best(entry: Mapping[str, Any]) -> str:
    """The step with the highest mean Dice, helping or not."""
    tried = dict(entry.get("tried", {}))
    volumes = tried.pop("min_volume_ml", {})
    words = {"fill_holes": "holes filled", "largest_component": "largest component"}
    found = {words.get(step, step): dice for step, dice in tried.items()}
    found |= {f"under {volume} ml removed": dice for volume, dice in volumes.items()}
    if not found:
        return "–"
    best = max(found, key=lambda step: found[step])
    return f"{best}: {number(found[best], 4)}"


def _steps_of(steps: Mapping[str, Any], name: str) -> list[str]:
    words = ["holes filled"] if name in steps.get("fill_holes", ()) else []
    words += ["largest component kept"] if name in steps.get("largest_component", ()) else []
    least = steps.get("min_volume_ml", {}).get(name)
    return words + ([] if least is None else [f"components under {least:g} ml removed"])
