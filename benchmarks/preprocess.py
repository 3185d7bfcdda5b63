"""From raw files to patches: our load, plan and sample against nnU-Net v2's plan_and_preprocess, on the same scans.

    python benchmarks/preprocess.py --peer-python /tmp/nnunet/bin/python --data hippocampus=DIR --data openkbp=DIR
        [--repeats 3] [--record FILE] [--quick]

The peer lives in an environment of its own (`pip install torch==2.13.0 nnunetv2==2.8.1`). Its raw folder is written by
our own `segpipe convert`, before the clock runs. Per repeat, in turn and each with its start-up:

- ours: the commands `segpipe load`, `plan` and `sample` one after the other (three start-ups; `segpipe run` has one):
  every voxel checked and hashed, fingerprint, plan, patch store. Planning is given its number of steps and precision,
  since nnU-Net measures none either; what measuring them takes is a row of its own.
- nnU-Net: `nnUNetv2_plan_and_preprocess -d ID --verify_dataset_integrity -c 3d_fullres`, with its own default numbers
  of processes (--peer-processes for others).

Goal: at most half of nnU-Net's wall time. --quick: six cases of each data set, one repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from recording import ROOT, write_record

MANIFESTS = {"hippocampus": "msd_task04_hippocampus", "openkbp": "openkbp", "sts_multi": "sts_multi"}
GOAL, QUICK_CASES = 0.5, 6
# Nothing to measure for planning, and one thread pool per process.
PINNED = ("--set", "train.max_steps=1000", "--set", "plan.precision=fp32")
OPEN = ("--set", "train.budget=10m")


def main() -> None:
    arguments = parse()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, folder) in enumerate(arguments.data, start=501):
            bench = Bench(name, folder, Path(temporary) / name, number, arguments)
            rows += bench.rows(1 if arguments.quick else arguments.repeats)
    from pipeline.base.terminal import format_table

    columns = ("data", "cases", "what", "median s", "each s", "ratio to nnU-Net")
    print(format_table(columns, rows))
    if arguments.record:
        about = [__doc__.split("\n\n", 2)[2].strip(), f"peer: {peer_versions(arguments.peer_python)}"]
        write_record(arguments.record, "Raw files to patches, ours and nnU-Net's", columns, rows, about)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--peer-processes", type=int, help="for nnU-Net's -npfp and -np; default: its own")
    parser.add_argument("--data", action="append", required=True, metavar="NAME=DIR", type=named_folder)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if name not in MANIFESTS or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: NAME is one of {', '.join(MANIFESTS)}, DIR an existing folder")
    return name, Path(folder).resolve()


class Bench:
    """One data set, prepared for both sides."""

    def __init__(self, name: str, data: Path, work: Path, number: int, arguments: argparse.Namespace) -> None:
        self.name, self.work, self.number, self.arguments = name, work, number, arguments
        work.mkdir(parents=True)
        manifest = json.loads((ROOT / "data_manifests" / f"{MANIFESTS[name]}.json").read_text(encoding="utf-8"))
        if arguments.quick:
            manifest["cases"] = manifest["cases"][:QUICK_CASES]
        # The scans that both sides work on: those with a label.
        manifest["cases"] = [case for case in manifest["cases"] if case.get("label")]
        self.cases = len(manifest["cases"])
        (work / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        self.config = work / "config.yaml"
        content = {"name": name, "data": {"manifest": str(work / "manifest.json"), "root": str(data)}}
        self.config.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        self.peer = f"Dataset{number}_{name}"
        run([*SEGPIPE, "convert", self.config, "--to", "nnunet", "--output", work / "raw" / self.peer])

    def rows(self, repeats: int) -> list[tuple[str, ...]]:
        """Times of both sides in turn, each repeat the other way round."""
        sides: dict[str, Callable[[], float]] = {"segpipe": self.ours, "nnU-Net": self.theirs}
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        measuring = []
        for repeat in range(repeats):
            for side in list(sides)[:: 1 if repeat % 2 == 0 else -1]:
                seconds[side].append(sides[side]())
                print(f"{self.name}: {side} {seconds[side][-1]:.1f} s", file=sys.stderr, flush=True)
            measuring.append(self.measuring())
        ratios = [mine / theirs for mine, theirs in zip(seconds["segpipe"], seconds["nnU-Net"], strict=True)]
        said = f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)}); goal {GOAL}"
        return [
            self.row("segpipe load + plan + sample", seconds["segpipe"], said),
            self.row("nnU-Net plan_and_preprocess", seconds["nnU-Net"], ""),
            self.row("segpipe plan, measuring steps", measuring, "beside the above"),
        ]

    def row(self, what: str, seconds: Sequence[float], ratio: str) -> tuple[str, ...]:
        each = ", ".join(f"{value:.1f}" for value in seconds)
        return self.name, str(self.cases), what, f"{statistics.median(seconds):.1f}", each, ratio

    def ours(self) -> float:
        shutil.rmtree(self.work / "run", ignore_errors=True)
        begin = time.perf_counter()
        for stage in ("load", "plan", "sample"):
            self.segpipe(stage, PINNED)
        return time.perf_counter() - begin

    def measuring(self) -> float:
        """Planning with a budget, for which training steps are measured."""
        begin = time.perf_counter()
        self.segpipe("plan", OPEN)
        return time.perf_counter() - begin

    def segpipe(self, stage: str, settings: Sequence[str]) -> None:
        run([*SEGPIPE, stage, self.config, "--out", self.work / "run", *settings])

    def theirs(self) -> float:
        for name in ("preprocessed", "results"):
            shutil.rmtree(self.work / name, ignore_errors=True)
            (self.work / name).mkdir()
        folders = {f"nnUNet_{name}": str(self.work / name) for name in ("raw", "preprocessed", "results")}
        count = self.arguments.peer_processes
        processes = [] if count is None else ["-npfp", count, "-np", count]
        program = self.arguments.peer_python.parent / "nnUNetv2_plan_and_preprocess"
        options = ["-d", self.number, "--verify_dataset_integrity", "-c", "3d_fullres", *processes]
        begin = time.perf_counter()
        run([program, *options], {**os.environ, **folders})
        return time.perf_counter() - begin


SEGPIPE = (sys.executable, "-m", "pipeline")


def run(command: Sequence[object], environment: dict[str, str] | None = None) -> None:
    """Runs a command to its end; what it printed is shown where it fails."""
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nended with {result.returncode}\n{result.stdout}\n{result.stderr}")


def peer_versions(python: Path) -> str:
    program = "from importlib.metadata import version; print(*(f'{n} {version(n)}' for n in ('nnunetv2', 'torch')))"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
