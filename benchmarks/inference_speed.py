"""Prediction, ours against nnU-Net v2's: the same network with the same weights, windows and scans, in turn.

    python benchmarks/inference_speed.py --peer-python /tmp/nnunet/bin/python [--images FOLDER] [--repeats 3]
        [--backends auto,torch,onnx,openvino] [--record FILE] [--quick]

The peer lives in an environment of its own (`pip install torch==2.13.0 nnunetv2==2.8.1`). The network is the U-Net that
nnU-Net plans for hippocampus (32/64/128/256, 5.6 M parameters, patch 40×56×40) with random weights, which
`nnunet_model.py` puts into a model folder of its own; windows are spread evenly with a step of half a patch, without
mirroring, on both sides. Per repeat and work, in turn and each with its start-up:

- ours: `segpipe predict --model PACKAGE`, with each of --backends (exports are made before the clock runs)
- nnU-Net: `nnUNetv2_predict_from_modelfolder -f 0 -device cpu --disable_tta`, with its own numbers of processes

Work: 52 scans of Task04 hippocampus (--images; without it, noise of that size), and one volume of 256³ voxels. Memory
is what all processes of a call take together, seen ten times a second: the largest sum of proportional sets, which
count a page that processes share once (PSS), and of resident sets, which count it for each. Labels are compared with
nnU-Net's: weights are random, so that many voxels are close to ties, and ours computes in bf16 unless --precision says
fp32. Goal: at least 2.5 times as fast, with at most half of the memory. --quick: 2 scans and 64³ voxels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from recording import ROOT, write_record

CHANNELS, PATCH = (32, 64, 128, 256), (40, 56, 40)
SCANS, SIDE = 52, 256
GOAL_TIMES_AS_FAST, GOAL_SHARE_OF_MEMORY = 2.5, 0.5


@dataclass
class Contestant:
    """One way to predict: a command that takes an input and an output folder, and what was measured of it."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    peak_gb: list[float] = field(default_factory=list)
    resident_gb: list[float] = field(default_factory=list)


def main() -> None:
    arguments = parse()
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        works = make_scans(folder / "scans", arguments)
        commands = make_models(folder / "models", works, arguments)
        for work, scans in works.items():
            contestants = [Contestant(name, command) for name, command in commands.items()]
            for repeat in range(1 if arguments.quick else arguments.repeats):
                for one in contestants:
                    measure(one, scans, folder / "out" / work / one.name / str(repeat), arguments)
            shares = {one.name: equal_share(folder / "out" / work, one.name) for one in contestants}
            rows += table(work, contestants, shares)
    from pipeline.base.terminal import format_table

    columns = ("work", "who", "median s", "each s", "PSS GB", "RSS GB", "times as fast", "share of PSS", "equal labels")
    print(format_table(columns, rows))
    if arguments.record:
        about = [__doc__.split("\n\n", 2)[2].strip(), f"peer: {versions(arguments.peer_python)}"]
        write_record(arguments.record, "Prediction, ours and nnU-Net's", columns, rows, about)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--peer-processes", type=int, help="for nnU-Net's -npp and -nps; default: its own (3)")
    parser.add_argument("--images", type=Path, help="folder of hippocampus scans; the first 52 are taken")
    parser.add_argument("--backends", default="auto", help="of ours, comma-separated")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="of ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit-s", type=int, default=1800, help="a call that takes longer ends the benchmark")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def make_scans(folder: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    """Folders of scans by the name of the work; files are named as nnU-Net wants them."""
    count, side = (2, 64) if arguments.quick else (SCANS, SIDE)
    works = {f"{count} hippocampus scans": folder / "many", f"one volume of {side}³": folder / "large"}
    many, large = works.values()
    many.mkdir(parents=True)
    large.mkdir()
    if arguments.images:
        for path in sorted(arguments.images.glob("*.nii.gz"))[:count]:
            (many / f"{path.name.removesuffix('.nii.gz')}_0000.nii.gz").write_bytes(path.read_bytes())
    else:
        for number in range(count):
            write_noise(many / f"scan_{number:03d}_0000.nii.gz", (36, 50, 35), number)
    write_noise(large / "large_0000.nii.gz", (side, side, side), 0)
    return works


def write_noise(path: Path, shape: tuple[int, int, int], seed: int) -> None:
    """Smooth noise at 1 mm, int16."""
    from scipy.ndimage import zoom

    coarse = np.random.default_rng(seed).normal(500, 200, [max(n // 8, 2) for n in shape])
    voxels = zoom(coarse, np.array(shape) / coarse.shape, order=1)
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.eye(4)), path)


def make_models(folder: Path, works: dict[str, Path], arguments: argparse.Namespace) -> dict[str, list[str]]:
    """One network as our package and as nnU-Net's model folder; the commands that predict with them, by name."""
    folder.mkdir()
    state = make_package(folder / "package", next(iter(works.values())), arguments)
    np.savez(folder / "weights.npz", **state)  # type: ignore[arg-type]
    made = [str(arguments.peer_python), str(ROOT / "benchmarks" / "nnunet_model.py")]
    subprocess.run([*made, str(folder / "weights.npz"), str(folder / "nnunet")], check=True, env=peer_environment())
    peer = [str(arguments.peer_python.with_name("nnUNetv2_predict_from_modelfolder")), "-m", str(folder / "nnunet")]
    peer += ["-f", "0", "-device", "cpu", "--disable_tta", "--disable_progress_bar"]
    if arguments.peer_processes:
        peer += ["-npp", str(arguments.peer_processes), "-nps", str(arguments.peer_processes)]
    commands = {"nnU-Net": [*peer, "-i", "INPUT", "-o", "OUTPUT"]}
    ours = [sys.executable, "-m", "pipeline", "predict", "--model", str(folder / "package"), "--device", "cpu"]
    for backend in arguments.backends.split(","):
        commands[f"ours, {backend}"] = [*ours, "--backend", backend, "--input", "INPUT", "--output", "OUTPUT"]
    return commands


def make_package(folder: Path, scans: Path, arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """Our package with random weights and the exports that the backends want; returns them by nnU-Net's names."""
    import torch

    from pipeline.base.files import write_json
    from pipeline.inference.predictor_config import PredictorConfig
    from pipeline.io.read_image import read_image
    from pipeline.models.checkpoint import save_weights
    from pipeline.models.networks.build_network import build_network
    from pipeline.packaging.export_models import export
    from pipeline.packaging.label_files import write_labels
    from pipeline.packaging.label_metadata import make_labels
    from pipeline.packaging.package_seal import write_seal
    from pipeline.preprocessing.plan import ChannelPlan, Plan, write_plan

    plan = Plan(
        spacing_mm=(1.0, 1.0, 1.0),
        channels=(ChannelPlan(name="MRI", modality="MR", scheme="zscore"),),
        structures={"anterior": (1,), "posterior": (2,)},
        patch_size=PATCH,
        batch_size=7,
        network={"name": "unet", "channels": CHANNELS, "strides": ((1, 1, 1), *[(2, 2, 2)] * 3),
                 "kernel_size": [(3, 3, 3)] * 4, "deep_supervision": 0},
        max_steps=1,
        precision=arguments.precision,
        device="cpu",
    )  # fmt: skip
    folder.mkdir()
    torch.manual_seed(0)
    network = build_network(plan.network, 1, plan.out_channels)
    write_plan(folder, plan)
    (folder / "weights").mkdir()
    save_weights(folder / "weights" / "fold_0.safetensors", network.state_dict())
    write_labels(folder, make_labels(plan.structures, {}))
    settings = PredictorConfig(starts="even")
    write_json(folder / "inference.json", settings.model_dump(mode="json"))
    write_json(folder / "fingerprint.json", {})
    for name in ("config.yaml", "MODEL_CARD.md"):
        (folder / name).write_text("random weights, for a benchmark\n", encoding="utf-8")
    image = read_image([next(iter(sorted(scans.iterdir())))])
    kinds = {kind for name in arguments.backends.split(",") for kind in ("onnx", "openvino") if name in (kind, "auto")}
    for kind in sorted(kinds & exports_there_are()):
        weights = [folder / "weights" / "fold_0.safetensors"]
        export(kind, plan, weights, image, folder / "exports", settings)  # type: ignore[arg-type]
    write_seal(folder, "benchmark", "0", ["weights/fold_0.safetensors"], "segmentation")
    arrays = {nnunet_name(name): array.numpy() for name, array in network.state_dict().items()}
    # nnU-Net's arrays are SimpleITK's, (z, y, x), so that its kernels are ours turned round.
    return {name: array.transpose(0, 1, 4, 3, 2) if array.ndim == 5 else array for name, array in arrays.items()}


def exports_there_are() -> set[str]:
    """The kinds of export that can be made and run here."""
    from importlib.util import find_spec
    from typing import get_args

    from pipeline.packaging.export_models import Kind

    packages = {"onnx": "onnxruntime", "openvino": "openvino"}
    return {kind for kind in get_args(Kind) if kind in packages and find_spec(packages[kind]) is not None}


def nnunet_name(ours: str) -> str:
    """The name that nnU-Net's PlainConvUNet has for a parameter of our U-Net."""
    levels = len(CHANNELS)
    block, _, rest = ours.partition(".")
    if block == "output_block":
        return f"decoder.seg_layers.{levels - 2}.{ours.rpartition('.')[2]}"
    if block in ("downsamples", "upsamples"):
        number, _, rest = rest.partition(".")
        if block == "upsamples" and rest.startswith("transp_conv"):
            return f"decoder.transpconvs.{number}.{ours.rpartition('.')[2]}"
        place = f"encoder.stages.{int(number) + 1}.0" if block == "downsamples" else f"decoder.stages.{number}"
    else:
        place = f"encoder.stages.{0 if block == 'input_block' else levels - 1}.0"
    layer = rest.removeprefix("conv_block.").split(".")[0]
    kind, nth = layer[:-1], int(layer[-1]) - 1
    return f"{place}.convs.{nth}.{kind}.{ours.rpartition('.')[2]}"


def measure(one: Contestant, scans: Path, out: Path, arguments: argparse.Namespace) -> None:
    """Runs one call and notes its wall time and the peak of its process tree."""
    out.mkdir(parents=True)
    words = [{"INPUT": str(scans), "OUTPUT": str(out)}.get(word, word) for word in one.command]
    environment = peer_environment() if one.name == "nnU-Net" else os.environ
    with (out.parent / f"{out.name}.log").open("w", encoding="utf-8") as log:
        started = time.perf_counter()
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        peak, resident = 0, 0
        try:
            while process.poll() is None:
                now = tree_bytes(process.pid)
                peak, resident = max(peak, now[0]), max(resident, now[1])
                time.sleep(0.1)
                if time.perf_counter() - started > arguments.limit_s:
                    raise SystemExit(f"{one.name} took longer than {arguments.limit_s} s")
        finally:
            end_tree(process)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"{one.name} ended with {process.returncode}:\n{Path(log.name).read_text(encoding='utf-8')}")
    one.seconds.append(seconds)
    one.peak_gb.append(peak / 1e9)
    one.resident_gb.append(resident / 1e9)
    said = [line for line in Path(log.name).read_text(encoding="utf-8").splitlines() if line.startswith("backend")]
    print(f"{out.parent.parent.name}, {one.name}: {seconds:.1f} s, {peak / 1e9:.2f} GB", *said, sep="\n  ", flush=True)


def tree_bytes(pid: int) -> tuple[int, int]:
    """PSS and RSS of a process and all its descendants together."""
    proportional = resident = 0
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for process in tree:
        try:
            memory = process.memory_full_info()
        except psutil.Error:  # it has ended meanwhile
            continue
        proportional, resident = proportional + memory.pss, resident + memory.rss
    return proportional, resident


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Ends a call that was given up, with all that it started."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
    process.wait()


def equal_share(folder: Path, name: str) -> float:
    """The share of voxels with the label that nnU-Net gives, over all scans of the first repeat."""
    equal = voxels = 0
    for path in sorted((folder / "nnU-Net" / "0").glob("*.nii.gz")):
        theirs, found = (np.asarray(nib.load(p).dataobj) for p in (path, folder / name / "0" / path.name))
        equal, voxels = equal + int((theirs == found).sum()), voxels + found.size
    return equal / voxels


def table(work: str, contestants: Sequence[Contestant], shares: dict[str, float]) -> list[tuple[str, ...]]:
    peer = contestants[0]
    rows: list[tuple[str, ...]] = []
    for one in contestants:
        seconds, peak = statistics.median(one.seconds), max(one.peak_gb)
        ratios = statistics.median(theirs / own for theirs, own in zip(peer.seconds, one.seconds, strict=True))
        each = " ".join(f"{value:.1f}" for value in one.seconds)
        memory = f"{peak:.2f}", f"{max(one.resident_gb):.2f}"
        share = f"{peak / max(peer.peak_gb):.2f}"
        measured = (f"{seconds:.1f}", each, *memory, f"{ratios:.2f}", share, f"{shares[one.name]:.2%}")
        rows.append((work, one.name, *measured))
    return rows


def peer_environment() -> dict[str, str]:
    folders = {f"nnUNet_{name}": tempfile.gettempdir() for name in ("raw", "preprocessed", "results")}
    return {**os.environ, **folders}


def versions(python: Path) -> str:
    code = "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in ('nnunetv2', 'torch')), sep=', ')"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
