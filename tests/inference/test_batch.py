"""Many cases: reading, network and writing overlap."""

from __future__ import annotations

from threading import Event

import pytest

from pipeline.inference import batch
from pipeline.inference.jobs import Job
from tests.inference.test_memory import write_scan
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

    read_image, write_label = batch.read_image, batch.write_label

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

    monkeypatch.setattr(batch, "read_image", reading)
    monkeypatch.setattr(batch, "write_label", writing)
    one = predictor(plan_for(), network)
    for case in cases:
        write_scan(tmp_path / f"{case}.nii.gz")
    jobs = [Job(str(case), (tmp_path / f"{case}.nii.gz",), tmp_path / f"{case}_out.nii.gz") for case in cases]
    results = list(batch.segment(jobs, lambda name: one, ahead=ahead))
    assert [result.status for result in results] == ["done"] * 3
    assert all(job.output.is_file() for job in jobs)
    assert in_vain == ([] if ahead else ["the reading of 1", "the reading of 2"])
