"""The pictured cases: which channels are shown, the switches above them, and each case with its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.reporting.format_numbers import number, plural
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.overlays import OverlaySettings, three_planes
from pipeline.reporting.run_record import RunRecord
from pipeline.reporting.slices import Slices

CaseImage = Sequence[tuple[int, Slices]]
"""Index of a case in the results, and its slices."""

_MOST_SCORES = 8


def case_pictures(
    run: RunRecord, key: str, pictured: CaseImage, shown: OverlaySettings, sets: Mapping[str, str]
) -> Html:
    """The switches, then each case on three planes. `key` is the section's; nothing without a case."""
    if not pictured:
        return Html("")
    cases = [_case_picture(run, index, slices, shown, sets) for index, slices in pictured]
    return join([_switches(run, key, shown), cases])


def _switches(run: RunRecord, key: str, shown: OverlaySettings) -> Html:
    """Boxes that hide contours and, with several channels, buttons that choose one; the style sheet does the rest."""
    boxes: list[object] = [
        tag(
            "label", tag("input", type="checkbox", checked=True, class_=role), tag("i", class_=role), role, class_="key"
        )
        for role in ("reference", "prediction")
    ]
    names = [run.plan.channels[channel].name for channel in shown.channels]
    buttons = [
        tag(
            "label",
            tag("input", type="radio", name=f"channel-{key}", checked=place == 0, class_=f"k{place}"),
            name,
            class_="key channel",
        )
        for place, name in enumerate(names)
    ]
    left_out = len(run.plan.channels) - len(names)
    words = [
        "Slices through the place where both differ most, patient's right on the left; slices count from 0 towards "
        "right, front and top. ",
        "Channels stand in the order in which the structures stand out. " if len(names) > 1 else "",
        f"{plural(left_out, 'channel')} in which they do so least are left out. " if left_out else "",
    ]
    if len(names) > 1:
        boxes += ["channel: ", *buttons]
    return join([tag("p", words, class_="muted"), tag("p", boxes, class_="muted switches")])


def _case_picture(run: RunRecord, index: int, slices: Slices, shown: OverlaySettings, sets: Mapping[str, str]) -> Html:
    results = run.results
    case = results.cases[index]
    mean = results.mean_over_structures("dice")[index]
    scores = [
        tag("li", tag("b", name), f" Dice {number(dice)}, HD95 {number(far, 2)} mm")
        for name, dice, far in zip(
            results.structures, results.of("dice")[index].tolist(), results.of("hd95_mm")[index].tolist(), strict=True
        )
    ]
    if len(scores) > _MOST_SCORES:
        scores = [*scores[:_MOST_SCORES], tag("li", f"and {len(scores) - _MOST_SCORES} more, see All cases")]
    heading = tag("h3", case, tag("small", f" {sets.get(case, '')} · mean Dice {number(float(mean))}"))
    planes = three_planes(slices, run.cases.structures, shown)
    return tag("article", heading, planes, tag("ul", scores, class_="scores"))
