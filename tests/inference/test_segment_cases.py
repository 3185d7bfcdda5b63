"""Many cases: reading, network and writing overlap as far as memory lets them.

The scans are real files, and what is done when is seen from outside: the guard is told what was read, the model what it
is to work on, and a label map is written where `write` is called. Whoever works waits there for what is to be done at
the same time. If it were done one after the other, somebody would wait in vain.
"""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import nullcontext
from threading import Event

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.heap import give_back_freed_memory
from pipeline.base.process_memory import forget_peak, peak_memory_gib, resident_memory_gib
from pipeline.inference.arrays.numpy_arrays import NumpyArrays
from pipeline.inference.memory_estimate import free_memory_gib
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_config import PostprocessConfig, PredictorConfig
from pipeline.inference.segment_cases import segment_cases
from pipeline.inference.segmentation_jobs import Job
from pipeline.io.geometry import Grid
from pipeline.io.write_label import write_label
from tests.inference.test_memory_estimate import write_scan
from tests.inference.test_predictor import nearest_class, plan_for, predictor

_SECONDS = 20.0
SHAPE = (16, 16, 16)
POSTPROCESSED = PredictorConfig(postprocess=PostprocessConfig(largest_component=("low",)))


class NearestClass:
    """A model on numpy; its logits live on a GPU if `arrays` says so."""

    backend, disagreement = "numpy", False

    def __init__(self, arrays=None, begin=lambda case: None):
        self.arrays, self.begin = arrays or NumpyArrays(), begin

    def inference_context(self):
        return nullcontext()

    def __call__(self, windows):
        if windows.any():  # its memory is measured once, on nothing
            self.begin(case_of(windows))
        return np.concatenate([-((windows - k) ** 2) for k in range(3)], axis=1)


class OnGpu(NumpyArrays):
    def free_gib(self):
        return 8.0

    def peak_gib(self):
        return 0.25


def case_of(voxels):
    """The number of the scan that these are from, which its first voxel holds."""
    return int(voxels.reshape(-1)[0])


class Batch:
    """Scans number 1, 2, … and what has been done with them: ("read", 1), ("network", 1), ("written", 1), …

    waits_for: what must be done, and when: an event (a step and a case) before which others have to come, to be waited
    for at most `seconds`. A "writing" is held up before its file is there. In `in_vain` are those that did not come.
    """

    def __init__(self, folder, cases, waits_for, free_gib=None, arrays=None, seconds=_SECONDS):
        self.jobs = [Job(str(case), (folder / f"{case}.nii",), folder / f"{case}_out.nii.gz") for case in cases]
        for case, job in zip(cases, self.jobs, strict=True):
            voxels = np.random.default_rng(0).uniform(0, 2, SHAPE).astype(np.float32)
            voxels[0, 0, 0] = case
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), job.images[0])
        self.waits_for, self.seconds = waits_for, seconds
        self.done, self.in_vain, self.changed = [], [], threading.Condition()
        model = NearestClass(arrays, begin=lambda case: self.does("network", case))
        room = free_memory_gib if free_gib is None else lambda settings: free_gib(self.needs, self)
        self.predictor = Predictor(plan_for(), model, POSTPROCESSED, room)
        self.needs = self.predictor.needs(Grid(SHAPE, np.eye(4))).fp32

    def does(self, step, case):
        """Waits for what has to come first, then notes this."""
        with self.changed:
            for other in self.waits_for.get((step, case), ()):
                if not self.changed.wait_for(lambda other=other: other in self.done, self.seconds):
                    self.in_vain.append(other)
            self.done.append((step, case))
            self.changed.notify_all()

    def is_written_yet(self):
        """Whether every case that was predicted is written."""
        return all(("written", case) in self.done for step, case in self.done if step == "network")

    def segment(self, **settings):
        def read(image):
            self.does("read", case_of(image.array))
            return ()

        def write(path, labels):
            case = int(path.name[0])
            self.does("writing", case)
            write_label(path, labels)
            assert path.is_file()
            self.does("written", case)

        results = segment_cases(self.jobs, lambda name: self.predictor, read, write=write, **settings)
        assert [(result.status, result.message) for result in results] == [("done", "")] * len(self.jobs)
        assert all(job.output.is_file() for job in self.jobs)
        return self

    def came_before(self, *steps):
        """Whether these were done in this order."""
        return all(step in self.done for step in steps) and list(steps) == sorted(steps, key=self.done.index)


def overlapping(cases):
    """Case by case, the network waits until the next scan is read, and the writer until the network has the next."""
    return {
        **{("network", case): [("read", case + 1)] for case in cases[:-1]},
        **{("writing", case): [("network", case + 1)] for case in cases[:-1]},
    }


def test_a_case_is_read_and_another_written_while_the_network_works(tmp_path):
    """The network on 2 waits for the reading of 3 and for the writing of 1, which waits for the network on 2."""
    waits = overlapping([1, 2, 3])
    waits["network", 3] = [("written", 1)]
    assert Batch(tmp_path, [1, 2, 3], waits).segment().in_vain == []


def test_without_reading_ahead_the_network_waits_for_the_next_scan_in_vain(tmp_path):
    batch = Batch(tmp_path, [1, 2, 3], {("network", 1): [("read", 2)], ("network", 2): [("read", 3)]}, seconds=0.1)
    assert batch.segment(ahead=False).in_vain == [("read", 2), ("read", 3)]


def test_a_case_waits_for_the_writing_of_the_last_where_memory_does_not_hold_both(tmp_path):
    """There is room for a whole case, and for a tenth of what the writing of another one takes beside it."""

    def free_gib(needs, batch):
        return needs.peak + 0.1 * needs.writing

    one_by_one = [(step, case) for case in (1, 2) for step in ("read", "network", "writing", "written")]
    assert Batch(tmp_path, [1, 2], {}, free_gib).segment().done == one_by_one


def test_a_case_does_not_wait_for_the_writing_of_the_last_where_memory_holds_both(tmp_path):
    """What postprocessing takes comes after the next case was found to fit."""
    batch = Batch(tmp_path, [1, 2], overlapping([1, 2]), lambda needs, batch: 1e3 * needs.peak)
    assert batch.segment().in_vain == []


def test_what_is_free_is_measured_again_when_the_last_case_is_written(tmp_path):
    """While 1 is written, 2 does not fit beside it. Then it does, and the reading of 3 beside it too."""

    def free_gib(needs, batch):
        if batch.is_written_yet():
            return 1e3 * needs.peak
        if threading.current_thread() is threading.main_thread():  # where it is asked what fits beside the writing
            batch.does("asked", sum(step == "network" for step, _ in batch.done))
        return needs.peak + 0.1 * needs.writing

    waits = {(("network", case)): [("read", case + 1)] for case in (1, 2)}
    waits |= {("writing", case): [("asked", case)] for case in (1, 2)}
    batch = Batch(tmp_path, [1, 2, 3], waits, free_gib).segment()
    assert batch.in_vain == []
    assert batch.came_before(("read", 2), ("network", 1), ("written", 1), ("read", 3), ("network", 2))
    assert batch.came_before(("network", 2), ("written", 2), ("network", 3), ("written", 3))


def test_an_image_that_was_read_ahead_is_not_wanted_twice(tmp_path):
    """What is free is what there is without the image of 2, which is in memory when 2 is asked about."""

    def free_gib(needs, batch):
        if batch.is_written_yet():
            return 1e3 * needs.peak
        return needs.peak + needs.writing - 0.5 * needs.conformed

    assert Batch(tmp_path, [1, 2], overlapping([1, 2]), free_gib).segment().in_vain == []


def test_what_the_network_takes_on_a_gpu_is_not_wanted_of_the_machine_s_memory(tmp_path):
    """0.25 GiB there; here there is room for two images and their postprocessing, and for nothing else."""

    def free_gib(needs, batch):
        return needs.beside_stores + needs.reading + needs.writing

    batch = Batch(tmp_path, [1, 2], overlapping([1, 2]), free_gib, OnGpu())
    assert batch.predictor.network_gib == 0.25 < batch.needs.stores and batch.needs.beside_stores < 0.01
    assert batch.segment().in_vain == []


def test_a_case_that_is_read_ahead_is_not_asked_to_fit_beside_the_one_at_hand(tmp_path):
    """Beside the image of 1 there is room for the rest of 1, and so for no more than the image of 2."""

    def free_gib(needs, batch):
        is_at_hand = ("read", 1) in batch.done and ("network", 1) not in batch.done
        return needs.peak - needs.conformed if is_at_hand else needs.peak + needs.reading

    batch = Batch(tmp_path, [1, 2], {("network", 1): [("read", 2)]}, free_gib)
    assert batch.segment().in_vain == []


def test_the_peak_of_a_case_is_not_that_of_the_next_one(tmp_path):
    """The writing of the first case ends when the network has taken 128 MiB for the second one."""
    seen, has_taken = [], Event()

    def network(windows):
        seen.append(np.ones(2**27 if len(seen) == 2 else 1, np.uint8))  # the first call measures what it takes
        if len(seen) == 3:
            has_taken.set()
        return nearest_class(windows)

    def write(path, labels):
        assert has_taken.wait(_SECONDS)
        write_label(path, labels)

    give_back_freed_memory()
    forget_peak()
    if peak_memory_gib() - resident_memory_gib() > 0.05:
        pytest.skip("this kernel forgets no peak")
    one = predictor(plan_for(), network)
    for name in "ab":
        write_scan(tmp_path / f"{name}.nii.gz")
    jobs = [Job(name, (tmp_path / f"{name}.nii.gz",), tmp_path / f"{name}_out.nii.gz") for name in "ab"]
    first, second = segment_cases(jobs, lambda name: one, write=write)
    assert second.peak_memory_gib - first.peak_memory_gib > 0.1


def test_a_case_that_fails_lets_go_of_its_image(tmp_path):
    """At once, not when somebody collects garbage: the next case may need the room."""
    images, alive = [], []

    def guard(image):
        alive.extend(image() is not None for image in images)
        images.append(weakref.ref(image.array))
        return ()

    nib.save(nib.Nifti1Image(np.full((16, 16, 16), np.nan, np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    write_scan(tmp_path / "b.nii.gz")
    jobs = [Job(name, (tmp_path / f"{name}.nii.gz",), tmp_path / f"{name}_out.nii.gz") for name in "ab"]
    one = predictor(plan_for())
    gc.disable()
    try:
        results = list(segment_cases(jobs, lambda name: one, guard, ahead=False))
    finally:
        gc.enable()
    assert [result.status for result in results] == ["failed", "done"]
    assert alive == [False]
