"""Memory is predicted before it is taken, and what does not fit is kept smaller or refused, never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from pipeline.base.errors import DataError
from pipeline.base.heap import ONE_POOL
from pipeline.base.process_memory import resident_memory_gib
from pipeline.inference.arrays.array_backend import GpuMemory
from pipeline.inference.arrays.torch_arrays import TorchArrays
from pipeline.inference.backends.torch_backend import TorchModel
from pipeline.inference.memory_estimate import free_memory_gib
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.inference.segment_cases import estimate_cases, segment_cases
from pipeline.inference.segmentation_jobs import Job
from pipeline.io.geometry import Grid
from pipeline.preprocessing.plan import ChannelPlan
from tests.inference.test_predictor import nearest_class, plan_for
from tests.packaging.small_package import small_package

CPU = torch.device("cpu")
LARGE = Grid((300, 300, 500), np.diag([1.0, 1.0, 1.0, 1.0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--accumulate", "half"),
        ("--accumulate", "fp32"),
        ("--accumulate", "half", "--image", "96,96,144"),
    ],
)
def test_the_predicted_peak_is_the_measured_one_within_a_fifth(options, repository):
    """80 classes in windows of 64 voxels, so that stores, network and blocks are as much as the process had before; and
    no window pulled back, for which room is kept that is touched last."""
    command = [sys.executable, "benchmarks/inference_memory.py", "--model", "128,128,192", "--roi", "64"]
    done = subprocess.run(
        [*command, "--classes", "80", *options], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    measured = seen["peak_gib"] - seen["base_gib"]
    assert seen["needs_gib"] > 0.2
    assert seen["needs_gib"] == pytest.approx(measured, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--files", "1"),
        ("--files", "3"),
        ("--files", "3", "--model", "96,96,96"),
        ("--files", "1", "--dtype", "float64"),
        ("--files", "1", "--postprocess"),
        ("--files", "1", "--maps", "uncertainty"),
        ("--files", "1", "--maps", "probabilities", "--postprocess"),
    ],
)
def test_of_files_with_few_classes_too(options, repository):
    """From the file to the written segmentation, as `segpipe predict` does it: here reading and the image are most."""
    command = [sys.executable, "benchmarks/inference_memory.py", "--roi", "64", "--classes", "3"]
    grids = ["--model", "256,256,192", "--image", "256,256,192", "--accumulate", "fp32"]
    done = subprocess.run([*command, *grids, *options], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["classes_found"] == 3
    assert seen["predicted_gib"] == pytest.approx(seen["peak_gib"], rel=0.2), seen


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "options"), [((0,), ()), ((0, 1), ("--maps", "uncertainty")), ((0,), ("onnx",))])
def test_of_real_networks_too(seeds, options, repository, segpipe_data, tmp_path):
    """A U-Net, two of them with their disagreement, and ONNX Runtime, whose memory torch knows nothing of."""
    backend = ("--backend", *options) if "onnx" in options else options
    if "onnx" in options:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    scan = segpipe_data / "hippocampus" / "images" / "hippocampus_001.nii.gz" if "onnx" in options else None
    package = small_package(tmp_path / "package", seeds=seeds, scan=scan)
    command = [sys.executable, "benchmarks/inference_memory.py", "--package", str(package), "--files", "1", *backend]
    grid = ["--model", "256,256,192", "--accumulate", "fp32", "--overlap", "0"]
    done = subprocess.run([*command, *grid], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["predicted_gib"] == pytest.approx(seen["peak_gib"], rel=0.2), seen


def predictor_with(gib, **settings):
    """A predictor that may use so much on top of what the process has; the network itself takes little."""
    settings = PredictorConfig(memory_gib=resident_memory_gib() + gib, **settings)
    many = plan_for(structures={f"structure {k}": (k,) for k in range(1, 60)}, patch_size=(64, 64, 64))
    return Predictor(many, TorchModel([nearest_class], CPU), settings)


def test_too_little_for_fp32_gives_stores_of_half_the_size():
    needs = predictor_with(1.0).needs(LARGE)
    between = 0.5 * (needs.fp32.peak + needs.half.peak)
    assert needs.half.stores < 0.8 * needs.fp32.stores
    assert predictor_with(between).use_half_precision(needs) is True
    assert predictor_with(needs.fp32.peak + 0.3).use_half_precision(needs) is False


def test_too_little_for_both_is_refused_with_figures_and_cure():
    small = predictor_with(0.01)
    needs = replace(small.needs(LARGE), base=0.25)
    with pytest.raises(DataError, match=r"needs about \d\.\d GiB of memory beside the 0\.2 GiB .* infer\.memory_gib"):
        small.use_half_precision(needs)


def test_a_small_memory_gib_refuses_the_case_before_its_voxels_are_read(tmp_path):
    """The whole way: the batch goes on, the case is refused by name."""
    small = predictor_with(1e-6)
    write_scan(tmp_path / "a.nii.gz")
    jobs = [Job("a", (tmp_path / "a.nii.gz",), tmp_path / "out.nii.gz")]
    (result,) = segment_cases(jobs, lambda name: small)
    assert result.status == "failed"
    assert "GiB are free" in result.message
    assert not (tmp_path / "out.nii.gz").exists()


def test_what_is_free_is_never_all_that_the_machine_has():
    assert free_memory_gib(PredictorConfig(), available_gib=lambda: 10.0) == pytest.approx(9.0)
    assert free_memory_gib(PredictorConfig(memory_gib=1e-3), available_gib=lambda: 10.0) < 0
    assert 0 < free_memory_gib(PredictorConfig()) < psutil.virtual_memory().total / 2**30


_MODEL = """
import sys
import scipy.ndimage
from contextlib import nullcontext
from pathlib import Path
import numpy as np
from pipeline.base.heap import keep_freed_memory
from pipeline.base.process_memory import resident_memory_gib
from pipeline.io.geometry import Grid
from pipeline.preprocessing.plan import ChannelPlan, Plan
from pipeline.io.volume import Volume
from pipeline.inference import segment_cases
from pipeline.io.read_image_header import read_image_header
from pipeline.inference.arrays.numpy_arrays import NumpyArrays
from pipeline.inference.segmentation_jobs import Job
from pipeline.inference.memory_estimate import free_memory_gib, reclaim_memory_gib
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_config import PredictorConfig, PostprocessConfig

class Model:
    arrays, backend, disagreement, inference_context = NumpyArrays(), "numpy", False, staticmethod(nullcontext)
    def __call__(self, windows):
        return np.repeat(windows, 41, axis=1)

plan = Plan(
    spacing_mm=(1, 1, 1), channels=(ChannelPlan(name="x", modality="MR", scheme="none"),), batch_size=1, max_steps=1,
    structures={f"s{k}": (k,) for k in range(1, 41)}, patch_size=(64, 64, 64), network={}, precision="fp32",
    device="cpu",
)
"""


def said_by(script, repository, *arguments):
    """What a process of its own prints, in which every thread takes from one pool, as in one that segments a batch."""
    done = subprocess.run(
        [sys.executable, "-c", _MODEL + script, *arguments],
        cwd=repository,
        env=os.environ | ONE_POOL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


KEPT = """
keep_freed_memory()
settings = PredictorConfig(memory_gib=resident_memory_gib() + 0.3)
np.ones(2**28, np.uint8)
print(free_memory_gib(settings), reclaim_memory_gib(0.01, settings), reclaim_memory_gib(0.25, settings))
np.ones(2**28, np.uint8)
print(Predictor(plan, Model()).network_gib)
"""


def test_memory_that_was_freed_and_kept_is_given_back_where_it_is_wanted(repository):
    """Of 0.3 GiB, 0.25 were taken and freed again: where little is wanted they stay, since taking them anew costs. Nor
    is a call of the network free where it can take what is there: 41 channels of 64³ voxels and one are 0.041 GiB."""
    said = said_by(KEPT, repository)
    kept, little, much, network = map(float, said.split())
    assert kept < 0.1 and little < 0.1 and much > 0.25
    assert network == pytest.approx(42 * 4 * 64**3 / 2**30, rel=0.2)


TIGHT = """
path = Path(sys.argv[1])
image = segment_cases.read_image([path])
settings = PredictorConfig(accumulate="fp32", postprocess=PostprocessConfig(largest_component=("s1",)))
needs = Predictor(plan, Model(), settings).needs(image.grid)
del image
limit = resident_memory_gib() + 1.3 * needs.fp32.peak
one = Predictor(plan, Model(), settings.model_copy(update={"memory_gib": limit}))
jobs = [Job(str(number), (path,), path.with_name(f"{number}.nii.gz")) for number in range(4)]
for result in segment_cases.segment_cases(jobs, lambda name: one):
    print(result.status, result.peak_memory_gib, limit, needs)
"""


@pytest.mark.slow
def test_cases_of_one_size_are_all_done_where_there_is_room_for_one_and_a_third(repository, tmp_path):
    """What each one leaves freed in the process is the next one's, and never more is held than may be."""
    write_scan(tmp_path / "a.nii", (96, 96, 96))
    said = said_by(TIGHT, repository, str(tmp_path / "a.nii"))
    statuses, peaks, limits, *_ = zip(*(line.split() for line in said.splitlines()), strict=False)
    assert statuses == ("done",) * 4, said
    assert max(map(float, peaks)) < 1.02 * float(limits[0])


READ = """
class Few(Model):
    def __call__(self, windows):
        return np.repeat(windows, 2, axis=1)

path = Path(sys.argv[1])
grid = read_image_header(path).grid
few = plan.model_copy(update={"structures": {"s1": (1,)}})
one = Predictor(few, Few(), PredictorConfig(accumulate="fp32", overlap=0))
needs = one.needs(grid, 2 * grid.shape[0] * grid.shape[1] * grid.shape[2])
keep_freed_memory()
(result,) = segment_cases.segment_cases([Job("a", (path,), path.with_name("out.nii"))], lambda name: one)
print(needs.fp32.reading, needs.fp32.peak, result.peak_memory_gib - needs.base)
"""


@pytest.mark.slow
def test_what_reading_left_freed_is_not_kept_beside_what_the_case_takes(repository, tmp_path):
    """A scan of 48 MiB in fp32, and it again on the planned grid, are most: nothing of the 24 MiB as stored, of what
    unpacked them or of what was normalised lies beside them in the heap."""
    write_scan(tmp_path / "a.nii.gz", (256, 256, 192), dtype=np.int16)
    said = said_by(READ, repository, str(tmp_path / "a.nii.gz"))
    reading, predicted, measured = map(float, said.split())
    assert reading == predicted == pytest.approx(96 / 1024)
    assert measured == pytest.approx(predicted, rel=0.2)


GREW = """
class Grows(Model):
    resident = []
    def __call__(self, windows):
        self.resident.append(resident_memory_gib())
        if len(self.resident) == 3:
            np.ones(2**28, np.uint8)
        return np.repeat(windows, 41, axis=1)

grid = Grid((128, 128, 128), np.eye(4))
one = Predictor(plan, Grows(), PredictorConfig(overlap=0))
needs = one.needs(grid)
keep_freed_memory()
one.predict(Volume(np.zeros((1, *grid.shape), np.float32), grid))
print(needs.base + needs.fp32.peak, *one.model.resident[1:])
"""


def test_a_heap_that_has_outgrown_the_need_is_cut_back_between_windows(repository):
    """The second of eight windows leaves 0.25 GiB unused; the next ones begin with no more than was predicted."""
    said = said_by(GREW, repository)
    predicted, *before_windows = map(float, said.split())
    assert len(before_windows) == 8
    assert max(before_windows) < predicted + 0.05


V = 16**3 / 2**30
"""GiB of a scan of one byte a voxel."""


@pytest.mark.parametrize(
    ("shape", "types", "expected"),
    [
        ((16, 16, 16), ("int16",), 4 + 4),  # the image, and it again on the planned grid
        ((16, 16, 16), ("float64",), 4 + 8),  # the image, and the voxels as stored
        ((16, 16, 16, 2), ("float64",), 8 + 16),  # all channels of a file are stored in one piece
        ((16, 16, 16), ("int16", "int16"), 8 + 4 + 1),  # each on the coarser planned grid, and one on the way there
        ((16, 16, 16), ("int16", "float64"), 8 + 8),  # files come one after the other
    ],
)
def test_what_reading_takes_follows_from_how_the_files_store_their_voxels(tmp_path, shape, types, expected):
    paths = tuple(tmp_path / f"{number}.nii" for number in range(len(types)))
    for path, dtype in zip(paths, types, strict=True):
        write_scan(path, shape, dtype=dtype)
    count = max(len(types), len(shape) - 2)
    channels = tuple(ChannelPlan(name=f"x{i}", modality="MR", scheme="none") for i in range(count))
    plan = plan_for((1.0, 1.0, 1.0) if len(types) == 1 else (2.0, 2.0, 2.0))
    one = Predictor(plan.model_copy(update={"channels": channels}), TorchModel([nearest_class], CPU))
    needs = estimate_cases([Job("a", paths, tmp_path / "out.nii.gz")], lambda name: one)["a"]
    assert needs.fp32.reading == pytest.approx(expected * V)


def test_a_scan_whose_voxels_would_multiply_is_remarked_on_or_refused_by_both_grids():
    """6 × 6 × 6 voxels of 50 × 50 × 80 mm would be 43 million at 1 mm: minutes of work on nothing."""
    one = Predictor(plan_for(), TorchModel([nearest_class], CPU))
    coarse = Grid((6, 6, 6), np.diag([50.0, 50.0, 80.0, 1.0]))
    with pytest.raises(
        DataError, match=r"6 × 6 × 6 voxels of 50 × 50 × 80 mm become 300 × 300 × 480 voxels of 1 × 1 × 1"
    ):
        one.enlargement(coarse)
    assert "20 times as many" in one.enlargement(Grid((60, 60, 6), np.diag([1.0, 1.0, 20.0, 1.0])))
    assert one.enlargement(Grid((60, 60, 6), np.diag([1.0, 1.0, 5.0, 1.0]))) == ""


def test_such_a_scan_fails_at_once_and_the_others_go_on(tmp_path, caplog):
    write_scan(tmp_path / "a.nii.gz", (6, 6, 6), (50.0, 50.0, 80.0))
    write_scan(tmp_path / "b.nii.gz", (20, 20, 3), (1.0, 1.0, 10.0))
    write_scan(tmp_path / "c.nii.gz")
    seen = []

    def network(windows):
        seen.append(windows)
        return nearest_class(windows)

    one = Predictor(plan_for(), TorchModel([network], CPU))
    jobs = [Job(case, (tmp_path / f"{case}.nii.gz",), tmp_path / f"{case}_out.nii.gz") for case in "abc"]
    results = list(segment_cases(jobs, lambda name: one))
    assert [result.status for result in results] == ["failed", "done", "done"]
    assert "300 × 300 × 480" in results[0].message
    assert "b  20 × 20 × 3 voxels of 1 × 1 × 10 mm become 20 × 20 × 30" in caplog.text
    assert len(seen) < 50  # windows of b and c; of a there would be 80,000


def test_what_torch_keeps_of_a_gpu_unused_is_free():
    """2 GiB are free to others and torch keeps 10, of which 4 are in use: 8 in all."""
    assert GpuMemory(free=2 * 2**30, reserved=10 * 2**30, allocated=4 * 2**30, peak=9 * 2**30).free_gib == 8.0


def test_what_a_call_took_of_a_gpu_is_its_peak_beside_what_stays():
    """At the most 5 GiB were in use, and the weights, which are 2, still are."""
    assert GpuMemory(free=0, reserved=8 * 2**30, allocated=2 * 2**30, peak=5 * 2**30).peak_gib == 3.0


def test_a_cpu_s_memory_is_the_machine_s():
    """So that the process's own peak is looked at."""
    assert TorchArrays(CPU).peak_gib() is None and TorchArrays(CPU).free_gib() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_what_is_taken_and_given_back():
    arrays = TorchArrays(torch.device("cuda"))
    held = arrays.empty((2**26,))  # 0.25 GiB
    free = arrays.free_gib()
    arrays.forget_peak()
    arrays.empty((2**27,))  # torch keeps its 0.5 GiB
    assert arrays.peak_gib() == pytest.approx(0.5, abs=0.01)
    assert arrays.free_gib() == pytest.approx(free, abs=0.1)
    assert GpuMemory.of(held.device).reserved >= 3 * 2**28


def write_scan(path, shape=(16, 16, 16), spacing_mm=(1.0, 1.0, 1.0), dtype=np.float32):
    import nibabel as nib

    voxels = np.random.default_rng(0).uniform(0, 2, shape).astype(dtype)
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing_mm, 1.0])), path)
