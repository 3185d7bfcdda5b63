"""The service's worker process: holds the model and segments one case at a time.

It is told what to do by lines of JSON on its standard input and answers each with one line on its standard output;
whatever anything else prints goes to standard error. It ends when its input ends, so it never outlives the service.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any

from pipeline.base.errors import SegpipeError
from pipeline.base.log_privacy import silence_dicom_logging
from pipeline.base.process_memory import peak_memory_gib
from pipeline.deploy.result_tables import structure_volumes_ml
from pipeline.deploy.server.worker_task import ServiceTask
from pipeline.inference.build_predictors import EngineSpec, build_predictors
from pipeline.inference.domain_check import domain_shift_reasons
from pipeline.inference.segment_cases import CASE_FAULTS, Job, segment_cases
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.packaging.model_package import ModelPackage, load_package
from pipeline.web.browser_volumes import write_viewer_volumes


def main(package: Path, device: str) -> None:
    """Serves requests until standard input ends.

    A request is a `Task`, an answer {"status": "done" or "failed", "message", "seconds", "peak_memory_gib"}, and for a
    case that is done "uncertainty" (null where the package does not ask for it), "volumes_ml" and "no_dicom_seg" (why
    there is none, or empty). The first line says {"status": "ready"}.
    """
    answers = _take_over_stdout()
    silence_dicom_logging()
    model = load_package(package)
    predictors = build_predictors(EngineSpec(model.plan, model.settings, {"": model.weights}, device))
    guard = partial(domain_shift_reasons, plan=model.plan, fingerprint=model.fingerprint)
    _answer(answers, {"status": "ready"})
    for line in sys.stdin:
        task = ServiceTask.from_line(line)
        (result,) = segment_cases([Job("scan", task.images, task.output, texts=False)], predictors, guard, task.strict)
        answer: dict[str, Any] = {"status": result.status, "message": result.message, "seconds": result.seconds}
        if result.status == "done":
            answer |= {"uncertainty": result.score, **_completed(task, model)}
        _answer(answers, {**answer, "peak_memory_gib": peak_memory_gib()})


def _completed(task: ServiceTask, model: ModelPackage) -> dict[str, Any]:
    """Volumes of a finished case, and the files that were asked for beside its segmentation."""
    try:
        segmentation = read_label(task.output)
        if task.shown:
            image = read_image(task.images, model.plan.resample_channels)
            write_viewer_volumes(task.output.parent, image, segmentation, model.labels)
        no_dicom_seg = _write_dicom_seg(task, segmentation, model) if task.dicom_seg else ""
    except CASE_FAULTS as error:
        return {"status": "failed", "message": f"the result could not be written: {error}"}
    return {"volumes_ml": structure_volumes_ml(segmentation, model.labels), "no_dicom_seg": no_dicom_seg}


def _write_dicom_seg(task: ServiceTask, segmentation: Volume, model: ModelPackage) -> str:
    """Why there is no DICOM-SEG; empty where there is one."""
    from pipeline.deploy.dicom_seg import write_dicom_seg

    name = f"{model.name} {model.version}"
    try:
        write_dicom_seg(task.dicom_seg_path, segmentation, task.images[0], model.labels, name)
    except SegpipeError as error:
        return str(error)
    return ""


def _take_over_stdout() -> IO[str]:
    """The stream to answer on; prints of libraries go to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(stream: IO[str], content: dict[str, Any]) -> None:
    stream.write(json.dumps(content) + "\n")
    stream.flush()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except SegpipeError as fault:  # a package or a setting that no worker can work with
        print(fault, file=sys.stderr)
        sys.exit(fault.exit_code)
