"""One request of `/predict`, from its upload to its answer."""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from fastapi.responses import Response

from pipeline.deploy.server.client_disconnect import cancel_on_disconnect
from pipeline.deploy.server.hide_server_paths import without_server_paths
from pipeline.deploy.server.predict_response import Form, ResponseWithPlace, answer_in_form
from pipeline.deploy.server.prometheus_metrics import ServiceMetrics
from pipeline.deploy.server.request_body import receive
from pipeline.deploy.server.server_settings import ServiceLimits
from pipeline.deploy.server.supervisor import Supervisor
from pipeline.deploy.server.unpack_upload import SCAN, unpack_upload
from pipeline.deploy.server.upload_rejected import UploadRejected
from pipeline.deploy.server.worker_messages import ServiceTask
from pipeline.packaging.model_package import ModelPackage

REQUEST_FOLDER = "segpipe-request-"
"""What the name of a request's temporary folder begins with."""
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Service:
    """What a request needs of the service."""

    model: ModelPackage
    supervisor: Supervisor
    limits: ServiceLimits
    meters: ServiceMetrics


async def answer_upload(request: Request, service: Service, strict: bool, form: Form) -> Response:
    """The answer to an uploaded scan: its files go once it is segmented, the answer's when that is sent.

    strict: a scan unlike the training data is refused. Raises Busy, WorkerLost, Refused and ClientDisconnect.
    """
    async with AsyncExitStack() as held:
        await held.enter_async_context(service.supervisor.queue_slot())
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix=REQUEST_FOLDER))
        try:
            answer = await _answer(request, service, Path(folder), strict, form)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise UploadRejected(507, "the service has no room left for this scan; try again later") from None
            raise
        service.meters.count(200)
        return ResponseWithPlace(answer, held.pop_all(), service.limits.upload_s)


async def _answer(request: Request, service: Service, folder: Path, strict: bool, form: Form) -> Response:
    model, received = service.model, folder / "received"
    await receive(request, received, service.limits)
    upload = await asyncio.to_thread(unpack_upload, received, folder, model.plan, service.limits.unpacked_bytes)
    if form == "dicom-seg" and not upload.is_series:
        raise UploadRejected(422, "answer=dicom-seg needs a zip of a DICOM series, which it refers to")
    task = ServiceTask(
        images=upload.images,
        output=folder / f"segmentation{upload.ending}",
        strict=strict,
        shown=form == "view",
        dicom_seg=upload.is_series and form in {"dicom-seg", "view"},
    )
    with service.meters.case():
        result = await cancel_on_disconnect(request, service.supervisor.segment(task))
    # Before the answer is read, which may take its time.
    await asyncio.to_thread(shutil.rmtree, folder / SCAN, ignore_errors=True)
    message = without_server_paths(result["message"], folder, upload)
    if result["status"] != "done":
        raise UploadRejected(422, message)
    about = {"volumes_ml": result["volumes_ml"], "warning": message, "model": f"{model.name} {model.version}"}
    if result["uncertainty"] is not None:
        about["uncertainty"] = result["uncertainty"]
    if task.dicom_seg:
        about["no_dicom_seg"] = without_server_paths(result["no_dicom_seg"], folder, upload)
    return answer_in_form(form, about, task, upload, len(model.plan.channels))
