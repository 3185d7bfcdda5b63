"""Responses of /predict: the segmentation, a form with all files, or JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal

from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pipeline.deploy.server.unpack_upload import Upload
from pipeline.deploy.server.upload_rejected import UploadRejected
from pipeline.deploy.server.worker_messages import ServiceTask
from pipeline.web.browser_volumes import OVERLAY, scan_name

Form = Literal["segmentation", "json", "dicom-seg", "view"]
"""What is sent back: a label map; its volumes; DICOM-SEG; or all that a page needs to show the result."""

log = logging.getLogger(__name__)

_LONGEST_HEADER = 3000
"""Proxies give all headers of an answer 4 to 8 KiB."""
_BLOCK = 2**20


def answer_in_form(form: Form, about: Mapping[str, Any], task: ServiceTask, upload: Upload, channels: int) -> Response:
    """The result in the form that the client asked for; raises an UploadRejected where there is no DICOM-SEG."""
    if form == "json":
        return JSONResponse(about)
    if form == "view":
        return _parts(about, task, upload, channels)
    if form == "dicom-seg" and about["no_dicom_seg"]:
        raise UploadRejected(422, about["no_dicom_seg"])
    path = task.dicom_seg_path if form == "dicom-seg" else task.output
    return FileResponse(path, filename=path.name, headers={"X-Segpipe-Result": summary_header(about)})


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


class ResponseWithPlace(Response):
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


def summary_header(about: Mapping[str, Any]) -> str:
    """What was found as one header; without the volumes where a proxy might not let so much through."""
    text = json.dumps(about)
    return text if len(text) <= _LONGEST_HEADER else json.dumps({**about, "volumes_ml": None})
