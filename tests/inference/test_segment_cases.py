"""Many cases: reading, network and writing overlap."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future
from contextlib import nullcontext
from threading import Event

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.heap import give_back_freed_memory
from pipeline.base.process_memory import forget_peak, peak_memory_gib, resident_memory_gib
from pipeline.inference import memory_estimate, segment_cases
from pipeline.inference.array_backend import NumpyArrays
from pipeline.inference.inference_config import InferenceConfig, PostprocessConfig
from pipeline.inference.predictor import Predictor
from pipeline.inference.segmentation_jobs import Job
from pipeline.io.geometry import Grid
from tests.inference.test_memory_estimate import write_scan
from tests.inference.test_predictor import nearest_class, plan_for, predictor

_SECONDS = 20.0


@pytest.mark.parametrize("ahead", [True, False])
def test_a_case_is_read_and_another_written_while_the_network_works(tmp_path, monkeypatch, ahead):
    """Case by case, the network waits until the next case has been read and the last one is being written, and the
    writer until the network has begun: one after the other, somebody would wait in vain."""
    cases = range(3)
    was_read, is_predicted, is_written = ([Event() for _ in cases] for _ in range(3))
    in_vain = []

    def waits(event, what):
        if not event.wait(_SECONDS if ahead else 0.1):
            in_vain.append(what)

    read_image, write_label = segment_cases.read_image, segment_cases.write_label

    def reading(images, resample):
        image = read_image(images, resample)
        was_read[int(images[0].name[0])].set()
        return image

    def network(windows):
        if not windows.any():  # its memory is measured once, before the first case
            return nearest_class(windows)
        case = next(case for case in cases if not is_predicted[case].is_set())
        is_predicted[case].set()
        if case > 0:
            waits(is_written[case - 1], f"the writing of {case - 1}")
        if case + 1 in cases:
            waits(was_read[case + 1], f"the reading of {case + 1}")
        return nearest_class(windows)

    def writing(path, labels):
        case = int(path.name[0])
        is_written[case].set()
        if case + 1 in cases:
            waits(is_predicted[case + 1], f"the network on {case + 1}")
        write_label(path, labels)

    monkeypatch.setattr(segment_cases, "read_image", reading)
    monkeypatch.setattr(segment_cases, "write_label", writing)
    one = predictor(plan_for(), network)
    for case in cases:
        write_scan(tmp_path / f"{case}.nii.gz")
    jobs = [Job(str(case), (tmp_path / f"{case}.nii.gz",), tmp_path / f"{case}_out.nii.gz") for case in cases]
    results = list(segment_cases.segment_cases(jobs, lambda name: one, ahead=ahead))
    assert [result.status for result in results] == ["done"] * 3
    assert all(job.output.is_file() for job in jobs)
    assert in_vain == ([] if ahead else ["the reading of 1", "the reading of 2"])


class InOrder:
    """In place of the threads, so that what is done when is certain: reading at once, writing when it is waited for."""

    def __init__(self, workers, name):
        self.at_once = name == "reader"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, work, *args, **settings):
        later = Later()
        later.work = lambda: work(*args, **settings)
        if self.at_once:
            later.do()
        return later


class Later(Future):
    def do(self):
        if not self.done():
            try:
                self.set_result(self.work())
            except Exception as error:
                self.set_exception(error)

    def result(self, timeout=None):
        self.do()
        return super().result(timeout)

    def exception(self, timeout=None):
        self.do()
        return super().exception(timeout)


class NearestClass:
    """A model on numpy; its logits live on a GPU where `arrays` says so."""

    backend, disagreement = "numpy", False

    def __init__(self, arrays):
        self.arrays = arrays

    def inference_context(self):
        return nullcontext()

    def __call__(self, windows):
        return np.concatenate([-((windows - k) ** 2) for k in range(3)], axis=1)


class OnGpu(NumpyArrays):
    def free_gib(self):
        return 8.0

    def peak_gib(self):
        return 0.25


POSTPROCESSED = InferenceConfig(postprocess=PostprocessConfig(largest_component=("low",)))


def order_of(tmp_path, monkeypatch, cases, free_gib, arrays=None):
    """What is done with cases of 16³ voxels, step by step, where memory has what `free_gib` says of needs and steps."""
    order, read_image, write_label = [], segment_cases.read_image, segment_cases.write_label
    one = Predictor(plan_for(), NearestClass(arrays or NumpyArrays()), POSTPROCESSED)
    predict_prepared = one.predict_prepared

    def told(step, done):
        order.append(step)
        return done

    def network(prepared):
        return told(f"network {cases[sum(step.startswith('network') for step in order)]}", predict_prepared(prepared))

    one.__dict__.update({"predict_prepared": network} | ({} if arrays else {"network_gib": 0.0}))
    needs = one.needs(Grid((16, 16, 16), np.eye(4))).fp32
    monkeypatch.setattr(segment_cases, "ThreadPoolExecutor", InOrder)
    monkeypatch.setattr(memory_estimate, "free_memory_gib", lambda settings: free_gib(needs, order))
    monkeypatch.setattr(
        segment_cases, "read_image", lambda paths, _: told(f"read {paths[0].name[0]}", read_image(paths))
    )
    monkeypatch.setattr(
        segment_cases, "write_label", lambda path, one: told(f"written {path.name[0]}", write_label(path, one))
    )
    for name in cases:
        write_scan(tmp_path / f"{name}.nii.gz")
    jobs = [Job(name, (tmp_path / f"{name}.nii.gz",), tmp_path / f"{name}_out.nii.gz") for name in cases]
    assert [result.status for result in segment_cases.segment_cases(jobs, lambda name: one)] == ["done"] * len(cases)
    return order


def is_written_yet(order):
    """Whether every case that was predicted is written."""
    return sum(step.startswith("network") for step in order) == sum(step.startswith("written") for step in order)


OVERLAPPING = ["read a", "read b", "network a", "network b", "written a", "written b"]


@pytest.mark.parametrize(
    ("room", "expected"),
    [(1.01, ["read a", "network a", "written a", "read b", "network b", "written b"]), (1e3, OVERLAPPING)],
    ids=["tight", "ample"],
)
def test_a_case_waits_for_the_writing_of_the_last_where_memory_does_not_hold_both(
    tmp_path, monkeypatch, room, expected
):
    """What postprocessing takes comes after the next case was found to fit."""
    assert order_of(tmp_path, monkeypatch, "ab", lambda needs, order: room * needs.peak) == expected


def test_what_is_free_is_measured_again_when_the_last_case_is_written(tmp_path, monkeypatch):
    """While `a` is written, `b` does not fit beside it; then it does, and the reading of `c` beside it too."""
    order = order_of(
        tmp_path, monkeypatch, "abc", lambda needs, order: (1e3 if is_written_yet(order) else 1.01) * needs.peak
    )
    assert order[:5] == ["read a", "read b", "network a", "written a", "read c"]
    assert order[5:] == ["network b", "written b", "network c", "written c"]


def test_an_image_that_was_read_ahead_is_not_wanted_twice(tmp_path, monkeypatch):
    """What is free is what there is without `b`'s image, which is in memory when `b` is asked about."""

    def free_gib(needs, order):
        return 1e3 * needs.peak if is_written_yet(order) else needs.peak + needs.writing - 0.5 * needs.conformed

    assert order_of(tmp_path, monkeypatch, "ab", free_gib) == OVERLAPPING


def test_what_the_network_takes_on_a_gpu_is_not_wanted_of_the_machine_s_memory(tmp_path, monkeypatch):
    """0.25 GiB there; here there is room for two images and their postprocessing, and for nothing else."""
    one = Predictor(plan_for(), NearestClass(OnGpu()), POSTPROCESSED)
    needs = one.needs(Grid((16, 16, 16), np.eye(4))).fp32
    assert one.network_gib == 0.25 < needs.stores and needs.beside_stores < 0.01
    here = needs.beside_stores + needs.reading + needs.writing
    assert order_of(tmp_path, monkeypatch, "ab", lambda needs, order: here, OnGpu()) == OVERLAPPING


def test_a_case_that_is_read_ahead_is_not_asked_to_fit_beside_the_one_at_hand(tmp_path, monkeypatch):
    """Beside `a`'s image there is room for the rest of `a`, and so for no more than the image of `b`."""

    def free_gib(needs, order):
        is_at_hand = "read a" in order and "network a" not in order
        return needs.peak - needs.conformed if is_at_hand else needs.peak + needs.reading

    assert order_of(tmp_path, monkeypatch, "ab", free_gib)[:3] == ["read a", "read b", "network a"]


def test_the_peak_of_a_case_is_not_that_of_the_next_one(tmp_path, monkeypatch):
    """The writing of the first case ends when the network has taken 128 MiB for the second one."""
    seen, has_taken, write_label = [], Event(), segment_cases.write_label

    def network(windows):
        seen.append(np.ones(2**27 if len(seen) == 2 else 1, np.uint8))  # the first call measures what it takes
        if len(seen) == 3:
            has_taken.set()
        return nearest_class(windows)

    def writing(path, labels):
        assert has_taken.wait(_SECONDS)
        write_label(path, labels)

    give_back_freed_memory()
    forget_peak()
    if peak_memory_gib() - resident_memory_gib() > 0.05:
        pytest.skip("this kernel forgets no peak")
    monkeypatch.setattr(segment_cases, "write_label", writing)
    one = predictor(plan_for(), network)
    for name in "ab":
        write_scan(tmp_path / f"{name}.nii.gz")
    jobs = [Job(name, (tmp_path / f"{name}.nii.gz",), tmp_path / f"{name}_out.nii.gz") for name in "ab"]
    first, second = segment_cases.segment_cases(jobs, lambda name: one)
    assert second.peak_memory_gib - first.peak_memory_gib > 0.1


def test_a_case_that_fails_lets_go_of_its_image(tmp_path, monkeypatch):
    """At once, not when somebody collects garbage: the next case may need the room."""
    images, alive, read_image = [], [], segment_cases.read_image

    def reading(paths, resample):
        alive.extend(image() is not None for image in images)
        image = read_image(paths, resample)
        images.append(weakref.ref(image.array))
        return image

    monkeypatch.setattr(segment_cases, "read_image", reading)
    nib.save(nib.Nifti1Image(np.full((16, 16, 16), np.nan, np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    write_scan(tmp_path / "b.nii.gz")
    jobs = [Job(name, (tmp_path / f"{name}.nii.gz",), tmp_path / f"{name}_out.nii.gz") for name in "ab"]
    one = predictor(plan_for())
    gc.disable()
    try:
        results = list(segment_cases.segment_cases(jobs, lambda name: one, ahead=False))
    finally:
        gc.enable()
    assert [result.status for result in results] == ["failed", "done"]
    assert alive == [False]
