"""One request of `/predict`, from its upload to its answer."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pipeline.deploy.server.prometheus_metrics import ServiceMetrics
from pipeline.deploy.server.request_body import cancel_on_disconnect, receive
from pipeline.deploy.server.server_settings import ServiceLimits
from pipeline.deploy.server.supervisor import Supervisor
from pipeline.deploy.server.uploads import SCAN, Upload, UploadRejected, unpack_upload
from pipeline.deploy.server.worker_task import ServiceTask
from pipeline.packaging.model_package import ModelPackage
from pipeline.web.browser_volumes import OVERLAY, scan_name

log = logging.getLogger(__name__)

Form = Literal["segmentation", "json", "dicom-seg", "view"]
"""What is sent back: a label map; its volumes; DICOM-SEG; or all that a page needs to show the result."""

REQUEST_FOLDER = "segpipe-request-"
"""What the name of a request's temporary folder begins with."""
_LONGEST_HEADER = 3000
"""Proxies give all headers of an answer 4 to 8 KiB."""
_BLOCK = 2**20
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
        return AnswerWithPlace(answer, held.pop_all(), service.limits.upload_s)


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
    message = _without_places(result["message"], folder, upload)
    if result["status"] != "done":
        raise UploadRejected(422, message)
    about = {"volumes_ml": result["volumes_ml"], "warning": message, "model": f"{model.name} {model.version}"}
    if result["uncertainty"] is not None:
        about["uncertainty"] = result["uncertainty"]
    if task.dicom_seg:
        about["no_dicom_seg"] = _without_places(result["no_dicom_seg"], folder, upload)
    return _in_form(form, about, task, upload, len(model.plan.channels))


def _in_form(form: Form, about: Mapping[str, Any], task: ServiceTask, upload: Upload, channels: int) -> Response:
    if form == "json":
        return JSONResponse(about)
    if form == "view":
        return _parts(about, task, upload, channels)
    if form == "dicom-seg" and about["no_dicom_seg"]:
        raise UploadRejected(422, about["no_dicom_seg"])
    path = task.dicom_seg_path if form == "dicom-seg" else task.output
    return FileResponse(path, filename=path.name, headers={"X-Segpipe-Result": result_header(about)})


def _parts(about: Mapping[str, Any], task: ServiceTask, upload: Upload, channels: int) -> Response:
    """A form (multipart/form-data, which browsers take apart themselves): what was found, and files to see and keep."""
    folder = task.output.parent
    files = {"segmentation": task.output, "overlay": folder / OVERLAY}
    files |= {f"scan-{number}": folder / scan_name(number) for number in range(channels)}
    if upload.is_series and not about["no_dicom_seg"]:
        files["dicom-seg"] = task.dicom_seg_path
    mark = secrets.token_hex(16)
    result = f'--{mark}\r\nContent-Disposition: form-data; name="result"\r\n\r\n{json.dumps(about)}\r\n'
    heads = {
        path: f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
        for name, path in files.items()
    }
    end = f"--{mark}--\r\n"

    def blocks() -> Iterator[bytes]:
        yield result.encode()
        for path, head in heads.items():
            yield head.encode()
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    yield block
            yield b"\r\n"
        yield end.encode()

    size = len(result) + len(end) + sum(len(head) + path.stat().st_size + 2 for path, head in heads.items())
    headers = {"Content-Length": str(size), "Content-Type": f"multipart/form-data; boundary={mark}"}
    return StreamingResponse(blocks(), headers=headers)


class AnswerWithPlace(Response):
    """An answer that holds a folder with its files and a place among the cases, which bounds what is on the disk.

    Until it is sent, or the client has left or takes longer than `longest_s` to read it.
    """

    def __init__(self, answer: Response, held: AsyncExitStack, longest_s: float) -> None:
        super().__init__(status_code=answer.status_code)
        self.answer, self.held, self.longest_s = answer, held, longest_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.longest_s):
                await self.answer(scope, receive, send)
        except TimeoutError:  # the server closes a connection whose answer is not whole
            log.warning("an answer was not read within %g s (SEGPIPE_UPLOAD_S); it is cut off", self.longest_s)
        finally:
            await self.held.aclose()


def result_header(about: Mapping[str, Any]) -> str:
    """What was found as one header; without the volumes where a proxy might not let so much through."""
    text = json.dumps(about)
    return text if len(text) <= _LONGEST_HEADER else json.dumps({**about, "volumes_ml": None})


def _without_places(message: str, folder: Path, upload: Upload) -> str:
    """A message without our own names: those of temporary folders, and that of the only file."""
    if len(upload.images) == 1:
        message = message.removeprefix(f"{upload.images[0]}: ")
    return message.replace(f"{folder}/{SCAN}/", "").replace(f"{folder}/", "")
