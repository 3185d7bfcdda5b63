"""Peak memory and time of checking and preparing one case of 512 × 512 × 600 int16 voxels.

    python benchmarks/large_case.py [FOLDER]       FOLDER keeps the made case (about 300 MB); default: a temporary one

Stage load, then the preparation of stage sample (resampled in plane), in this process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (512, 512, 600)


def make_case(folder: Path) -> Path:
    """Writes image, label and manifest, slice by slice in memory of one volume."""
    from pipeline.base.files import write_json

    affine = np.diag([-0.8, -0.8, 1.0, 1])
    x, y = np.meshgrid(np.linspace(-1, 1, SHAPE[0]), np.linspace(-1, 1, SHAPE[1]), indexing="ij")
    body = (x**2 + y**2) < 0.6
    image = np.full(SHAPE, -1024, np.int16)
    label = np.zeros(SHAPE, np.uint8)
    rng = np.random.default_rng(0)
    for z in range(SHAPE[2]):
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
    if sys.argv[1:2] == ["--make"]:
        make_case(Path(sys.argv[2]))
        return
    from pipeline.base.runtime import Runtime, peak_memory_gib
    from pipeline.base.stage import execute
    from pipeline.data.cases import read_cases
    from pipeline.data.plan import Plan, write_plan
    from pipeline.data.prepare import Preparation, prepare_case
    from pipeline.planning.values import plan_channels
    from pipeline.stages import load

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            # In a process of its own, so that making it does not count.
            subprocess.run([sys.executable, __file__, "--make", str(folder)], check=True)
        serial, out = Runtime(device="cpu", executor="serial"), folder / "run"
        print(f"before: {peak_memory_gib():.2f} GiB")
        start = time.perf_counter()
        reads = load.LoadReads(data=load.DataConfig(manifest=manifest), load=load.LoadConfig())
        execute(load.STAGE, reads, {}, out / "load", serial, force=True)
        print(f"load: {time.perf_counter() - start:.1f} s, peak so far {peak_memory_gib():.2f} GiB")
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
        (out / "plan").mkdir(parents=True, exist_ok=True)
        write_plan(out / "plan", plan)
        start = time.perf_counter()
        store = out / "store"
        store.mkdir(exist_ok=True)
        prepare_case(Preparation(cases.training()[0], folder, plan, store, 5000, 0))
        print(f"prepare: {time.perf_counter() - start:.1f} s, peak so far {peak_memory_gib():.2f} GiB")


if __name__ == "__main__":
    main()
