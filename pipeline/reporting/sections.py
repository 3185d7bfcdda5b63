"""The run's story in sections: what came out, the data, the plan with its reasons, the training, the provenance."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pipeline.base.stage import duration
from pipeline.dataset.cases_json import Case
from pipeline.reporting.charts.svg_axes import number, plural
from pipeline.reporting.charts.training_curves import dice_curves, loss_curves, rate_curves, time_shares
from pipeline.reporting.html_builder import Html, join, tag
from pipeline.reporting.run_record import RunRecord, StageRecord
from pipeline.reporting.tables import faults_table, table


def headline(run: RunRecord) -> Html:
    """The few figures that a reader wants first."""
    mean = run.results.summary.get("mean", {})
    failed = failures(run)
    tiles = [
        _tile("mean Dice", _value(mean.get("dice"), 3), _interval(mean.get("dice"), 3)),
        _tile("mean NSD", _value(mean.get("nsd"), 3), _interval(mean.get("nsd"), 3)),
        _tile("mean HD95", _value(mean.get("hd95_mm"), 2, " mm"), _interval(mean.get("hd95_mm"), 2)),
        _tile("scored cases", str(len(run.results.cases)), plural(len(run.results.structures), "structure")),
        _tile("failed cases", str(len(failed)), "none" if not failed else "see Failures", alert=bool(failed)),
    ]
    return tag("div", tiles, class_="tiles")


def summary_sentence(run: RunRecord) -> str:
    """What was run, in two sentences."""
    training, testing = len(run.cases.training()), len(run.cases.testing())
    seconds = next((stage.timing.get("seconds") for stage in run.stages if stage.name == "train"), None)
    took = f" in {duration(seconds)}" if seconds is not None else ""
    folds = ", ".join(str(fold) for fold in run.train["folds"])
    network = run.train.get("network", {}).get("name", run.plan.network.get("name", "network"))
    loss = run.train.get("loss", {}).get("name", "")
    return (
        f"Data set {run.cases.dataset}: {training} training and {testing} testing cases, "
        f"{plural(len(run.cases.channels), 'channel')}, {plural(len(run.cases.structures), 'structure')}. "
        f"Network {network} with loss {loss}, fold {folds}, {run.train.get('steps', run.plan.max_steps)} steps{took}."
    )


def data_section(run: RunRecord) -> Html:
    """Sizes, spacings, structures' volumes and the faults that were found."""
    cases = run.cases.cases
    rows = [
        ["cases", f"{len(run.cases.training())} training, {len(run.cases.testing())} testing"],
        ["channels", ", ".join(f"{channel.name} ({channel.modality})" for channel in run.cases.channels)],
        ["shape, R × A × S", _range_of([_along_ras(case, case.shape) for case in cases], 0)],
        ["spacing mm, R × A × S", _range_of([_along_ras(case, case.spacing_mm) for case in cases], 2)],
        ["orientation", ", ".join(f"{code} ({n})" for code, n in Counter(c.orientation for c in cases).most_common())],
        ["folds", {"manifest": "given by the manifest", "made": "made here"}.get(run.folds_source, run.folds_source)],
        ["licence", run.cases.licence or "not stated"],
    ]
    structures = [
        [name, ", ".join(map(str, values)), *_volumes(cases, name)] for name, values in run.cases.structures.items()
    ]
    faults = run.faults
    return join(
        [
            table(["", "found"], rows, "facts"),
            tag("h3", "Structures"),
            table(
                ["structure", "label value", "labelled cases", "smallest ml", "median ml", "largest ml"],
                structures,
                "figures",
            ),
            tag("h3", "Faults found"),
            faults_table(faults) if faults else tag("p", "None: every file was sound.", class_="good"),
        ]
    )


def plan_section(run: RunRecord) -> Html:
    """Every planned value with its reason."""
    values = run.plan.model_dump(mode="json", exclude={"reasons", "predicted", "structures"})
    values["channels"] = [
        f"{channel.name}: {channel.scheme}"
        + (f" [{number(channel.lower)}, {number(channel.upper)}]" if channel.lower is not None else "")
        for channel in run.plan.channels
    ]
    for key in ("spacing_mm", "patch_size"):
        values[key] = " × ".join(map(_shown, values[key]))
    rows = [
        [key, _shown(value), run.plan.reasons.get(key, "")]
        for key, value in values.items()
        if value not in (None, (), [])
    ]
    predicted = [[key, number(value)] for key, value in run.plan.predicted.items()]
    parts = [table(["what", "value", "because"], rows, "words plan")]
    if predicted:
        parts += [tag("h3", "Predicted before the start"), table(["what", "value"], predicted, "facts")]
    return join(parts)


def training_section(run: RunRecord) -> Html:
    """Curves, and where the time went."""
    curves = tag("div", loss_curves(run.folds), dice_curves(run.folds), rate_curves(run.folds), class_="gallery")
    notes = [
        tag(
            "p",
            f"Fold {fold.name}: best validation at step {fold.best_step}; packaged and scored are the last weights.",
        )
        for fold in run.folds
        if fold.best_step is not None
    ]
    shares = time_shares(run.folds)
    total = sum(seconds for _, seconds in shares)
    if total > 0:
        rows = [[what, duration(seconds), f"{100 * seconds / total:.0f} %"] for what, seconds in shares]
        notes.append(table(["time went into", "", "share"], rows, "facts"))
    return join([curves, notes, _preview(run.preview)])


def failures(run: RunRecord) -> dict[str, str]:
    """Every case that did not get through, with the reason: at loading, inference or scoring."""
    found = {str(entry["case"]): str(entry["reason"]) for entry in run.results.summary.get("not_scored", ())}
    for stage in run.stages:
        found |= {case: f"failed in stage {stage.name}" for case in stage.failed_cases if case not in found}
    found |= {
        str(e["id"]): str(e.get("message") or "no prediction") for e in run.inferred if e.get("prediction") is None
    }
    return dict(sorted(found.items()))


def failures_section(run: RunRecord) -> Html:
    """A table of what failed and why, or a sentence that nothing did."""
    found = failures(run)
    if not found:
        return tag("p", "None: every case was segmented, and every one with a reference was scored.", class_="good")
    return table(["case", "reason"], found.items(), "words")


def provenance_section(run: RunRecord) -> Html:
    """Stages with digests, weights, software and machine, and how to make it all again."""
    rows = [_stage_row(stage) for stage in run.stages]
    weights = [
        [name, _hash(digest, 64)]
        for stage in run.stages
        if stage.name == "train"
        for name, digest in stage.outputs.items()
        if name.endswith("last.safetensors")
    ]
    machine = next((stage.timing for stage in reversed(run.stages) if stage.timing.get("packages")), {})
    return join(
        [
            table(["stage", "version", "took", "peak memory", "finished (UTC)", "request", "outputs"], rows, "facts"),
            [tag("h3", "Weights (sha256)"), table(["file", "digest"], weights, "facts")] if weights else None,
            tag("h3", "Software and machine"),
            table(["what", "version"], _machine_rows(machine, run), "facts"),
            tag("h3", "To make it again"),
            tag("p", "Save the configuration below as config.yaml, put back the paths of manifest and data, and run:"),
            tag("pre", tag("code", "segpipe run config.yaml --set data.manifest=MANIFEST --set data.root=DATA")),
            tag("details", tag("summary", "Resolved configuration"), tag("pre", tag("code", run.config))),
        ]
    )


def _preview(png: bytes) -> Html:
    if not png:
        return Html("")
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return join([tag("h3", "Patches drawn for training"), tag("figure", tag("img", src=source, alt="drawn patches"))])


def _tile(title: str, value: str, below: str, alert: bool = False) -> Html:
    return tag(
        "div", tag("span", title), tag("b", value), tag("small", below), class_="tile alert" if alert else "tile"
    )


def _value(entry: Mapping[str, Any] | None, digits: int, unit: str = "") -> str:
    return number(entry["mean"], digits) + unit if entry and entry.get("mean") is not None else "–"


def _interval(entry: Mapping[str, Any] | None, digits: int) -> str:
    low, high = (entry or {}).get("ci95") or (None, None)
    return "" if low is None or high is None else f"95 %: {number(low, digits)} to {number(high, digits)}"


def _along_ras(case: Case, values: Sequence[float]) -> tuple[float, ...]:
    """Values along a case's stored axes, put into the order right-left, front-back, up-down."""
    return tuple(
        values[next(i for i, code in enumerate(case.orientation) if code in pair)] for pair in ("RL", "AP", "SI")
    )


def _range_of(triples: Sequence[Sequence[float]], digits: int) -> str:
    """Median and range along x, y, z."""
    if not triples:
        return "–"
    axes = list(zip(*triples, strict=True))
    middle = " × ".join(f"{median(axis):.{digits}f}" for axis in axes)
    if all(min(axis) == max(axis) for axis in axes):
        return f"{middle} in all cases"
    low, high = (" × ".join(f"{pick(axis):.{digits}f}" for axis in axes) for pick in (min, max))
    return f"median {middle}, from {low} to {high}"


def _volumes(cases: Sequence[Case], structure: str) -> list[object]:
    ml = []
    for case in cases:
        x, y, z = case.spacing_mm
        if voxels := case.label_voxels.get(structure):
            ml.append(voxels * x * y * z / 1000)
    return [len(ml), *(number(pick(ml), 2) if ml else "–" for pick in (min, median, max))]


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join("×".join(map(_shown, v)) if isinstance(v, (list, tuple)) else _shown(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _stage_row(stage: StageRecord) -> list[object]:
    timing = stage.timing
    memory = timing.get("peak_memory_gib")
    return [
        stage.name,
        stage.version,
        duration(timing["seconds"]) if "seconds" in timing else "–",
        f"{memory:.2f} GiB" if memory is not None else "–",
        str(timing.get("finished", "–"))[:16].replace("T", " "),
        _hash(stage.request),
        _hash(stage.output),
    ]


def _hash(digest: str | None, characters: int = 12) -> Html:
    return tag("code", (digest or "–")[:characters], title=digest, class_="hash")


def _machine_rows(timing: Mapping[str, Any], run: RunRecord) -> list[list[object]]:
    rows: list[list[object]] = [["seed", run.seed], ["source revision", timing.get("git_revision") or "not a checkout"]]
    rows += [["Python", timing.get("python", "–")], *([name, v] for name, v in timing.get("packages", {}).items())]
    rows += [["platform", timing.get("platform", "–")], ["cores", timing.get("cores", "–")]]
    rows += [["device", run.plan.device], ["precision", run.plan.precision]]
    return rows
