"""Worker process of the service: it holds the model and segments one case at a time.

It answers each request with one message (`child_process.py`) and ends at once if the service is gone.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.base.child_process import read_requests, send_message, take_over_stdout
from pipeline.base.errors import SegpipeError
from pipeline.base.log_privacy import silence_dicom_logging
from pipeline.base.process_memory import peak_memory_gib
from pipeline.deploy.dicom_seg import write_dicom_seg
from pipeline.deploy.result_tables import structure_volumes_ml
from pipeline.deploy.server.worker_messages import ServiceTask
from pipeline.inference.build_predictors import PredictorSpec, build_predictors
from pipeline.inference.domain_check import domain_shift_reasons
from pipeline.inference.segment_cases import Job, segment_cases
from pipeline.inference.segmentation_jobs import CASE_FAULTS
from pipeline.io.read_image import read_image
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.packaging.model_package import ModelPackage, load_package
from pipeline.web.browser_volumes import write_viewer_volumes


def main(package: Path, device: str) -> None:
    """Serve requests until the service ends.

    A request is a `ServiceTask`. An answer is {"status": "done" or "failed", "message", "seconds", "peak_memory_gib"},
    and for a case that is done "uncertainty" (null if the package does not ask for it), "volumes_ml" and "no_dicom_seg"
    (why there is none, or empty). The first message says {"status": "ready"}.
    """
    answers, requests = take_over_stdout(), read_requests()
    silence_dicom_logging()
    model = load_package(package)
    predictors = build_predictors(PredictorSpec(model.plan, model.settings, {"": model.weights}, device))
    guard = partial(domain_shift_reasons, plan=model.plan, fingerprint=model.fingerprint)
    send_message(answers, {"status": "ready"})
    for request in requests:
        task = ServiceTask.from_json(request)
        (result,) = segment_cases([Job("scan", task.images, task.output, texts=False)], predictors, guard, task.strict)
        answer: dict[str, Any] = {"status": result.status, "message": result.message, "seconds": result.seconds}
        if result.status == "done":
            answer |= {"uncertainty": result.score, **_completed(task, model)}
        send_message(answers, {**answer, "peak_memory_gib": peak_memory_gib()})


def _completed(task: ServiceTask, model: ModelPackage) -> dict[str, Any]:
    """Return the volumes of a finished case, and write the files that were asked for next to its segmentation."""
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
    """Write the DICOM-SEG and return an empty text, or return why there is none."""
    name = f"{model.name} {model.version}"
    try:
        write_dicom_seg(task.dicom_seg_path, segmentation, task.images[0], model.labels, name)
    except SegpipeError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except SegpipeError as fault:  # a package or a setting that no worker can work with
        print(fault, file=sys.stderr)
        sys.exit(fault.exit_code)
