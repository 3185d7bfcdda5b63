"""The model card: what the model is for, what it was trained on, how good it is, and what it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import __version__
from pipeline.dataset.loaded_cases import Cases
from pipeline.inference.postprocessing.select_postprocessing import describe_steps
from pipeline.inference.predictor_config import PostprocessConfig, PredictorConfig
from pipeline.packaging.label_metadata import Label
from pipeline.preprocessing.plan import Plan

NOT_A_DEVICE = (
    "**Research use only. This model is not a medical device:** it has not been cleared or approved by any authority, "
    "and its output must not be used for diagnosis, treatment or any other clinical decision."
)
_MEAN = "**mean**"
_FIGURES = (("dice", "Dice"), ("hd95_mm", "HD95 (mm)"), ("nsd", "NSD"))


@dataclass(frozen=True)
class CardText:
    """What only the authors can say."""

    name: str
    version: str
    description: str
    intended_use: str
    authors: str
    licence: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class CardFacts:
    """What the run knows, beside plan, cases and labels.

    summary: evaluate's summary.json. train: train.json. postprocess: infer's postprocess.json. exports: other forms of
    the networks, each with the share of a case's voxels that get torch's label.
    """

    summary: Mapping[str, Any]
    train: Mapping[str, Any]
    postprocess: Mapping[str, Any]
    exports: Mapping[str, float]


def model_card(
    text: CardText,
    plan: Plan,
    cases: Cases,
    labels: Sequence[Label],
    inference: PredictorConfig,
    facts: CardFacts,
) -> str:
    """The card as Markdown."""
    parts = [
        f"# {text.name} {text.version}",
        NOT_A_DEVICE,
        text.description,
        f"## Intended use\n\n{text.intended_use}",
        "## Structures\n\n" + _structures(labels),
        "## Training data\n\n" + _data(cases),
        "## Model\n\n" + _model(plan, facts.train),
        "## Postprocessing\n\n" + _postprocessing(plan, inference, facts.postprocess),
        "## Evaluation\n\n" + _evaluation(facts.summary),
        "## Limits\n\n" + _limits(plan),
        f"## Licence and authors\n\nWeights: {text.licence or 'not stated'}. Training data: "
        f"{cases.licence or 'not stated'}. Authors: {text.authors or 'not stated'}. Made with segpipe {__version__}.",
    ]
    if facts.exports:
        parts.insert(-2, "## Other forms\n\n" + _exports(facts.exports))
    if text.references:
        parts.append("## References\n\n" + "\n".join(f"- {reference}" for reference in text.references))
    return "\n\n".join(part for part in parts if part) + "\n"


def _structures(labels: Sequence[Label]) -> str:
    rows = [
        f"| {x.name} | {', '.join(map(str, x.values))} | {x.type.scheme} {x.type.value} {x.type.meaning} |"
        for x in labels
    ]
    return "\n".join(["| structure | label value | code |", "| --- | --- | --- |", *rows])


def _data(cases: Cases) -> str:
    training = cases.training()
    channels = ", ".join(f"{channel.name} ({channel.modality})" for channel in cases.channels)
    subjects = len({case.subject for case in training})
    return f"{cases.dataset}: {len(training)} cases of {subjects} subjects. Channels: {channels}."


def _model(plan: Plan, train: Mapping[str, Any]) -> str:
    folds = ", ".join(str(fold) for fold in train.get("folds", []))
    spacing = " × ".join(f"{mm:.3g}" for mm in plan.spacing_mm)
    patch = " × ".join(map(str, plan.patch_size))
    return (
        f"Network `{plan.network.get('name', '?')}`, loss `{train.get('loss', {}).get('name', '?')}`, "
        f"{train.get('steps', plan.max_steps)} steps, patches of {patch} voxels at {spacing} mm, folds {folds}. The "
        "weights are those of the last step (their moving average where training keeps one)."
    )


def _postprocessing(plan: Plan, inference: PredictorConfig, chosen: Mapping[str, Any]) -> str:
    """What is done to finished label maps, on whose word, and what it gained."""
    settings, count = inference.postprocess, chosen.get("cases", 0)
    on_validation = f"on {count} cases of cross-validation"
    if not isinstance(settings, PostprocessConfig):
        if chosen.get("asked") != "auto":
            return "None."
        if count < (fewest := chosen.get("fewest_cases", 0)):
            return f"None. Steps are chosen on {fewest} cases of cross-validation or more; here there were {count}."
        return f"None. Steps were tried {on_validation}; none raised the mean Dice."
    seen = chosen.get("structures", {})
    lines = [
        f"- {name}: {', '.join(words)}{_gain(seen.get(name))}"
        for name in plan.structures
        if (words := describe_steps(settings, name))
    ]
    if chosen.get("asked") != "auto":
        return "\n".join(["Chosen by the authors, applied to every prediction:", "", *lines])
    selected = (
        f"Selected on validation: the steps raised the mean Dice {on_validation}, and are applied to every prediction. "
        "The figures below are with them; on those cases the gain is a little flattering."
    )
    return "\n".join([selected, "", *lines])


def _gain(seen: Mapping[str, Any] | None) -> str:
    if seen is None or "dice_after" not in seen:
        return ""
    return (
        f"; mean Dice {seen['dice']:.4f} without, {seen['dice_after']:.4f} with "
        f"({seen['better']} cases better, {seen['worse']} worse)"
    )


def _exports(exports: Mapping[str, float]) -> str:
    shares = ", ".join(f"{kind} {share:.4%}" for kind, share in exports.items())
    return (
        f"In `exports/`. Voxels of a case that got the label of torch in fp32, seen before they were written: {shares}."
    )


def _evaluation(summary: Mapping[str, Any]) -> str:
    head = ["structure", *(title for _, title in _FIGURES), "cases"]
    entries = [*summary.get("structures", {}).items(), (_MEAN, summary.get("mean", {}))]
    rows = []
    for name, entry in entries:
        cells = [_figure(entry.get(key, {})) for key, _ in _FIGURES]
        rows.append(f"| {name} | {' | '.join(cells)} | {_count(name, entry)} |")
    table = "\n".join([f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *rows])
    return (
        "Mean [95 % bootstrap interval]; in cross-validation each case is scored by the network that did not see it. "
        f"Definitions are in `metrics/summary.json`.\n\n{table}"
    )


def _count(name: str, entry: Mapping[str, Any]) -> str:
    """Of cases; the mean is one over structures."""
    n = entry.get("dice", {}).get("n", "")
    return f"{n} structures" if name == _MEAN else f"{n}"


def _figure(entry: Mapping[str, Any]) -> str:
    mean, interval = entry.get("mean"), entry.get("ci95")
    if mean is None:
        return "undefined"
    bounds = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and None not in interval else ""
    return f"{mean:.3f}{bounds}"


def _limits(plan: Plan) -> str:
    modalities = ", ".join(sorted({channel.modality for channel in plan.channels}))
    return (
        f"Trained on {modalities} with the spacings, fields of view and intensities recorded in `fingerprint.json`; a "
        "scan outside them is flagged at prediction and refused with `--strict`. Agreement with the training data's "
        "annotators is all that was measured; other scanners, populations and pathologies were not."
    )
