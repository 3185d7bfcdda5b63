"""Peak memory and time of checking and preparing one case of 512 × 512 × 600 int16 voxels.

    python benchmarks/large_case.py [--folder DIR] [--record FILE] [--quick]

DIR keeps the made case (about 300 MB); default: a temporary folder. Stage load, then the preparation of stage sample
(resampled in plane), in this process; making the case happens in another. Goal: under 3 GB. --quick: a twentieth of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, QUICK_SHAPE = (512, 512, 600), (512, 512, 30)
GOAL_GB = 3.0


def make_case(folder: Path, shape: tuple[int, int, int]) -> Path:
    """Writes image, label and manifest, slice by slice in memory of one volume."""
    from pipeline.base.files import write_json

    affine = np.diag([-0.8, -0.8, 1.0, 1])
    x, y = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    body = (x**2 + y**2) < 0.6
    image = np.full(shape, -1024, np.int16)
    label = np.zeros(shape, np.uint8)
    rng = np.random.default_rng(0)
    for z in range(shape[2]):
        image[..., z][body] = rng.normal(40, 30, body.sum()).astype(np.int16)
        label[..., z][(x - 0.2) ** 2 + y**2 < 0.03] = 1
        label[..., z][(x + 0.3) ** 2 + (y - 0.1) ** 2 < 0.01] = 2
    nib.save(nib.Nifti1Image(image, affine), folder / "large.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), folder / "large_label.nii.gz")
    case = {"id": "large", "subject": "large", "images": ["large.nii.gz"], "label": "large_label.nii.gz"}
    manifest = {
        "format": "segpipe-manifest/1",
        "name": "large",
        "channels": [{"name": "CT", "modality": "CT"}],
        "labels": {"liver": 1, "spleen": 2},
        "cases": [case | {"split": "training"}],
    }
    write_json(folder / "manifest.json", manifest)
    return folder / "manifest.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shape = QUICK_SHAPE if arguments.quick else SHAPE
    if arguments.make:
        make_case(arguments.folder, shape)
        return
    from pipeline.base.terminal import format_table

    with tempfile.TemporaryDirectory() as temporary:
        rows, peak_gb = measured(arguments.folder or Path(temporary), arguments.quick)
    columns = ("what", "seconds", "peak GB so far")
    print(format_table(columns, rows))
    said = f"{'×'.join(map(str, shape))} voxels of int16: {peak_gb:.2f} GB at most; goal: under {GOAL_GB:g} GB"
    print(said)
    if arguments.record:
        from recording import write_record

        write_record(arguments.record, "One large case, checked and prepared", columns, rows, [said])


def measured(folder: Path, quick: bool) -> tuple[list[tuple[str, ...]], float]:
    """Rows of what was done, and the peak in GB (1e9 bytes) of this process."""
    from pipeline.base.execute_stage import execute
    from pipeline.base.machine import Runtime
    from pipeline.config.data import DataConfig
    from pipeline.config.load import LoadConfig
    from pipeline.stages.stage_configs import LoadStageConfig
    from pipeline.stages.stage_table import LOAD

    manifest = folder / "manifest.json"
    if not manifest.is_file():
        # In a process of its own, so that making it does not count.
        words = [sys.executable, __file__, "--make", "--folder", str(folder), *(["--quick"] if quick else [])]
        subprocess.run(words, check=True)
    serial, out = Runtime(device="cpu", executor="serial"), folder / "run"
    rows: list[tuple[str, ...]] = [("start-up", "", f"{peak_gb():.2f}")]
    start = time.perf_counter()
    reads = LoadStageConfig(data=DataConfig(manifest=manifest), load=LoadConfig())
    execute(LOAD, reads, {}, out / "load", serial, force=True)
    rows.append(("load: read, check, hash, measure", f"{time.perf_counter() - start:.1f}", f"{peak_gb():.2f}"))
    start = time.perf_counter()
    prepare(folder, out)
    rows.append(("prepare: conform, resample, write", f"{time.perf_counter() - start:.1f}", f"{peak_gb():.2f}"))
    return rows, peak_gb()


def peak_gb() -> float:
    from pipeline.base.process_memory import peak_memory_gib

    return peak_memory_gib() * 2**30 / 1e9


def prepare(folder: Path, out: Path) -> None:
    """What stage sample does with a case, onto a grid of 1 mm."""
    from pipeline.dataset.loaded_cases import read_cases
    from pipeline.planning.normalisation import plan_channels
    from pipeline.preprocessing.plan import Plan
    from pipeline.sampling.prepare_case import Preparation, prepare_case

    cases = read_cases(out / "load")
    plan = Plan(
        spacing_mm=(1.0, 1.0, 1.0),
        channels=plan_channels(cases.channels, cases.training(), {})[0],
        structures=cases.structures,
        patch_size=(64, 64, 64),
        batch_size=2,
        network={"name": "unet"},
        max_steps=1,
        precision="fp32",
        device="cpu",
    )
    store = out / "store"
    store.mkdir(exist_ok=True)
    prepare_case(Preparation(cases.training()[0], folder, plan, store, 5000, 0))


if __name__ == "__main__":
    main()
