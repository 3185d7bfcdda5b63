"""The loss study: one network, eight losses, three seeds, two data sets, with everything else equal.

    python benchmarks/loss_study.py configs/loss_study.yaml --out runs/loss_study --set data.root=FOLDER

Trains on phantoms in which one structure has under 0.1 % of the voxels, and on the data of the configuration. Every run
is a folder of stages, so that the same command goes on where it was stopped and does nothing twice. It ends in
`study.csv`, `study.json`, `study.md` (a table with intervals) and `study.png` in the output folder; with --docs the
table is also written into that page between its `loss study` marks.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.base.execute_stage import execute
from pipeline.base.files import write_json, write_text
from pipeline.base.heap import keep_freed_memory
from pipeline.base.machine import Runtime
from pipeline.config import load_config, to_yaml
from pipeline.config.pipeline_config import PipelineConfig
from pipeline.dataset.phantoms import make_phantoms
from pipeline.runner import STAGES, settings_for

LOSSES: dict[str, dict[str, object]] = {
    "Dice": {"name": "dice"},
    "CE": {"name": "ce"},
    "Dice + CE": {"name": "dice_ce"},
    "weighted CE": {"name": "ce", "class_weights": "inverse_frequency"},
    "generalised Dice": {"name": "generalized_dice"},
    "Tversky": {"name": "tversky"},
    "focal": {"name": "focal"},
    "Dice, epsilon 1": {"name": "dice", "smooth_nr": 1.0, "smooth_dr": 1.0},
}
"""The eight of the study; the last one shows what a large epsilon does."""

PHANTOM_CASES, NODULE_SHARE, PHANTOM_STEPS = 24, 0.0008, 1000
_SHARED, _OWN = ("load", "plan", "sample"), ("train", "infer", "evaluate")
_MARKS = "<!-- loss study: begin -->", "<!-- loss study: end -->"


@dataclass(frozen=True)
class Score:
    """Dice of one structure of one case, by one loss and seed on one data set; None where it is undefined."""

    data: str
    loss: str
    seed: int
    case: str
    structure: str
    dice: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/loss_study"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--data", nargs="+", choices=("phantoms", "config"), default=["phantoms", "config"])
    parser.add_argument("--docs", type=Path, help="a page to write the table into")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    keep_freed_memory()
    scores: list[Score] = []
    for data, steps, place in _data_sets(arguments.config, arguments.out, arguments.data):
        for seed in arguments.seeds:
            for loss in arguments.losses:
                own = [*place, f"seed={seed}", f"train.loss={json.dumps(LOSSES[loss])}"]
                config = load_config(arguments.config, [*steps, *arguments.overrides, *own])
                logging.info("\n%s · %s · seed %d", data, loss, seed)
                folder = arguments.out / data / f"{loss} {seed}".replace(" ", "_").replace(",", "")
                scores += _scores(_run(config, arguments.out / data, folder), data, loss, seed)
    _write(scores, arguments.out, arguments.docs)


def _data_sets(config: Path, out: Path, wanted: Sequence[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Names of the data sets, and what each changes in the configuration: the steps, and where the data is."""
    if "phantoms" in wanted:
        folder = out / "phantoms" / "data"
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            make_phantoms(folder, cases=PHANTOM_CASES, nodule_share=NODULE_SHARE)
        place = [f"data.manifest={manifest.resolve()}", f"data.root={folder.resolve()}"]
        yield "phantoms", [f"train.max_steps={PHANTOM_STEPS}"], place
    if "config" in wanted:
        yield load_config(config).data.manifest.stem, [], []


def _run(config: PipelineConfig, shared: Path, own: Path) -> Path:
    """One run: load, plan and sample once per data set, the rest on its own. Returns the folder of its evaluation."""
    runtime = Runtime(config.device, config.executor.name, config.executor.workers)
    for name in (*_SHARED, *_OWN):
        stage = STAGES[name]
        inputs = {source: (shared if source in _SHARED else own) / source for source in stage.inputs}
        out = (shared if name in _SHARED else own) / name
        execute(stage, settings_for(stage, config), inputs, out, runtime, resolved_config=to_yaml(config))
    return own / "evaluate"


def _scores(evaluation: Path, data: str, loss: str, seed: int) -> Iterator[Score]:
    with (evaluation / "per_case.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            dice = float(row["dice"]) if row["dice"] else None
            yield Score(data, loss, seed, row["case"], row["structure"], dice)


def _write(scores: Sequence[Score], out: Path, docs: Path | None) -> None:
    rows = list(_rows(scores))
    lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    write_text(out / "study.csv", "\n".join(lines) + "\n")
    write_json(out / "study.json", rows)
    table = _table(rows)
    write_text(out / "study.md", table)
    _figure(rows, out / "study.png")
    print("\n" + table)
    if docs is not None:
        before, _, rest = docs.read_text(encoding="utf-8").partition(_MARKS[0])
        _, _, after = rest.partition(_MARKS[1])
        write_text(docs, f"{before}{_MARKS[0]}\n{table}{_MARKS[1]}{after}")


def _rows(scores: Sequence[Score]) -> Iterator[dict[str, object]]:
    """Per data set, structure and loss: mean Dice over cases and seeds, its 95 % interval, the spread of the seeds.

    The interval resamples cases (each with all its seeds, 2000 times); the spread is the standard deviation of the
    seeds' means. Cases without the structure in reference and prediction are left out.
    """
    groups: dict[tuple[str, str, str], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        if score.dice is not None:
            groups[score.data, score.structure, score.loss][score.case][score.seed] = score.dice
    for (data, structure, loss), cases in groups.items():
        case_means = np.array([np.mean(list(seeds.values())) for seeds in cases.values()])
        rng = np.random.default_rng(0)
        resampled = case_means[rng.integers(len(case_means), size=(2000, len(case_means)))].mean(1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        seeds = sorted({seed for by_seed in cases.values() for seed in by_seed})
        by_seed = [np.mean([values[seed] for values in cases.values() if seed in values]) for seed in seeds]
        yield {
            "data": data,
            "structure": structure,
            "loss": loss,
            "dice": round(float(case_means.mean()), 4),
            "low": round(float(low), 4),
            "high": round(float(high), 4),
            "seed_means": " ".join(f"{mean:.4f}" for mean in by_seed),
            "seed_std": round(float(np.std(by_seed, ddof=1)), 4) if len(seeds) > 1 else 0.0,
            "cases": len(cases),
            "seeds": len(seeds),
        }


def _table(rows: Sequence[dict[str, object]]) -> str:
    """One Markdown table per data set: losses down, structures across."""
    text = ""
    for data in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == data]
        structures = list(dict.fromkeys(str(row["structure"]) for row in of_data))
        cases, seeds = max(int(str(r["cases"])) for r in of_data), max(int(str(r["seeds"])) for r in of_data)
        text += f"**{data}**: mean Dice [95 % interval over {cases} cases] ± spread of {seeds} seeds\n\n"
        text += f"| loss | {' | '.join(structures)} |\n| --- |{' --- |' * len(structures)}\n"
        for loss in dict.fromkeys(str(row["loss"]) for row in of_data):
            by_structure = {row["structure"]: row for row in of_data if row["loss"] == loss}
            text += f"| {loss} | {' | '.join(_cell(by_structure.get(name)) for name in structures)} |\n"
        text += "\n"
    return text


def _cell(row: dict[str, object] | None) -> str:
    if row is None:
        return "–"
    return f"{row['dice']:.3f} [{row['low']:.3f}, {row['high']:.3f}] ± {row['seed_std']:.3f}"


def _figure(rows: Sequence[dict[str, object]], path: Path) -> None:
    """Points with intervals, and grey marks for the seeds: one panel per data set and structure, one line per loss."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = list(dict.fromkeys((row["data"], row["structure"]) for row in rows))
    losses = list(dict.fromkeys(str(row["loss"]) for row in rows))
    across = min(len(panels), 3)
    figure, grid = plt.subplots(
        math.ceil(len(panels) / across),
        across,
        figsize=(4 * across, 3 * math.ceil(len(panels) / across)),
        squeeze=False,
    )
    for axes, (data, structure) in zip(grid.flat, panels, strict=False):
        for row in rows:
            if (row["data"], row["structure"]) == (data, structure):
                at = -losses.index(str(row["loss"]))
                axes.plot([row["low"], row["high"]], [at, at], color="tab:blue")
                means = [float(mean) for mean in str(row["seed_means"]).split()]
                axes.plot(means, [at] * len(means), "|", color="gray", markersize=9)
                axes.plot([row["dice"]], [at], "o", color="tab:blue")
        axes.set(
            title=f"{data}: {structure}", xlabel="Dice", yticks=[-i for i in range(len(losses))], yticklabels=losses
        )
        axes.grid(axis="x", alpha=0.3)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on from here")
