"""Receiving without a server: bodies that never end or swell, clients that leave, a full disk."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")
from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from pipeline.base.errors import ConfigError
from pipeline.deploy import container_entrypoint
from pipeline.deploy.server import predict_endpoint, predict_response
from pipeline.deploy.server.client_disconnect import cancel_on_disconnect
from pipeline.deploy.server.middleware import SafeResponseMiddleware
from pipeline.deploy.server.request_body import receive
from pipeline.deploy.server.server_settings import ServiceLimits, read_limits
from pipeline.deploy.server.unzip_upload import safe_names
from pipeline.deploy.server.upload_rejected import UploadRejected


def _request(*messages: dict | None) -> Request:
    """A request whose body comes in these messages; None is waited for in vain."""
    left = list(messages)

    async def source() -> dict:
        message = left.pop(0) if left else {"type": "http.disconnect"}
        if message is None:
            await asyncio.sleep(60)
        return message

    return Request({"type": "http", "method": "POST", "headers": [], "query_string": b""}, source)


def _piece(size: int, more: bool = True) -> dict:
    return {"type": "http.request", "body": bytes(size), "more_body": more}


def test_an_upload_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UploadRejected, match=r"took over 0\.05 s") as refused:
        asyncio.run(receive(_request(_piece(10), None), tmp_path / "a", ServiceLimits(upload_s=0.05)))
    assert refused.value.status == 408


def test_an_upload_without_a_length_is_stopped_at_the_limit(tmp_path: Path) -> None:
    with pytest.raises(UploadRejected, match="at most 1 MiB") as refused:
        asyncio.run(receive(_request(*[_piece(2**19)] * 5), tmp_path / "a", ServiceLimits(upload_mib=1)))
    assert refused.value.status == 413
    assert (tmp_path / "a").stat().st_size <= 2**20


def test_a_client_that_leaves_ends_what_is_done_for_it() -> None:
    ended = []

    async def work() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
        return "never"

    with pytest.raises(ClientDisconnect):
        asyncio.run(cancel_on_disconnect(_request(), work()))
    assert ended == [True]


def test_what_work_gives_or_raises_comes_through() -> None:
    async def gives() -> int:
        return 7

    async def raises() -> int:
        raise UploadRejected(422, "no")

    assert asyncio.run(cancel_on_disconnect(_request(None), gives())) == 7
    with pytest.raises(UploadRejected):
        asyncio.run(cancel_on_disconnect(_request(None), raises()))


def test_a_full_disk_is_said_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def place() -> AsyncIterator[None]:
        yield

    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(predict_endpoint, "receive", full)
    monkeypatch.setattr(predict_endpoint.tempfile, "tempdir", str(tmp_path))
    service = SimpleNamespace(model=None, limits=ServiceLimits(), supervisor=SimpleNamespace(queue_slot=place))
    with pytest.raises(UploadRejected, match="no room left") as refused:
        asyncio.run(predict_endpoint.answer_upload(_request(), service, False, "json"))
    assert refused.value.status == 507
    assert list(tmp_path.iterdir()) == []


def test_the_rest_of_a_refused_body_is_read_for_no_longer_than_an_upload_may_take() -> None:
    """The answer is out before; then the body is dropped until it ends, the limit, or the time is over."""

    async def refuses(scope: dict, receive: object, send) -> None:
        await send({"type": "http.response.start", "status": 429, "headers": []})
        await send({"type": "http.response.body", "body": b"busy"})

    async def sent(limits: ServiceLimits, *messages: dict | None) -> tuple[list[dict], int]:
        answer, left = [], list(messages)

        async def source() -> dict:
            message = left.pop(0)
            if message is None:
                await asyncio.sleep(60)
            return message

        async def send(message: dict) -> None:
            answer.append(message)

        await SafeResponseMiddleware(refuses, limits)({"type": "http", "headers": []}, source, send)
        return answer, len(left)

    whole = [_piece(2**19)] * 3 + [_piece(0, more=False)]
    answer, left = asyncio.run(sent(ServiceLimits(), *whole))
    assert [message.get("body") for message in answer] == [None, b"busy", b""] and left == 0
    assert asyncio.run(sent(ServiceLimits(upload_mib=1), *[_piece(2**19)] * 9))[1] == 7
    assert asyncio.run(sent(ServiceLimits(upload_s=0.05), _piece(1), None))[1] == 0


def test_an_answer_that_nobody_reads_is_cut_off_and_its_files_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = []

    async def stuck(message: dict) -> None:
        begun.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    scope = {"type": "http", "method": "POST", "headers": [], "asgi": {"spec_version": "2.4"}}

    async def answered() -> None:
        held = AsyncExitStack()
        folder = held.enter_context(tempfile.TemporaryDirectory(dir=tmp_path))
        (Path(folder) / "segmentation.nii.gz").write_bytes(b"labels")
        held.callback(begun.append, "place given back")
        await predict_response.ResponseWithPlace(Response(b"labels"), held, longest_s=0.05)(scope, None, stuck)

    asyncio.run(answered())
    assert begun == ["http.response.start", "http.response.body", "place given back"]
    assert "not read within 0.05 s" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_is_logged_by_place_and_kind_not_with_the_values_it_quotes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def faulty(scope: dict, receive: object, send: object) -> None:
        raise ValueError("could not read 'Dumbledore^Albus'")

    asyncio.run(SafeResponseMiddleware(faulty, ServiceLimits())({"type": "http", "headers": []}, None, None))
    assert "in faulty" in caplog.text and "ValueError" in caplog.text
    assert "Dumbledore" not in caplog.text.replace("could not read 'Dumbledore^Albus'\")", "")  # the line of this test


def test_limits_come_from_the_environment_and_nonsense_is_named() -> None:
    assert read_limits({"SEGPIPE_QUEUE": "0", "SEGPIPE_TOKEN": " a b\n"}) == ServiceLimits(queue=0, token="a b")
    for wrong in ("-1", "many", "nan", "inf", "0"):
        with pytest.raises(ConfigError, match="SEGPIPE_MAX_UPLOAD_MIB"):
            read_limits({"SEGPIPE_MAX_UPLOAD_MIB": wrong})


@pytest.mark.parametrize(
    ("channels", "theirs", "ours"),
    [
        (["T1"], ["p/scan.nii.gz"], ["case0.nii.gz"]),
        (["T1"], ["p1_0000.nii", "p2_0000.nii"], ["case0_0000.nii", "case1_0000.nii"]),
        (["T1", "T2"], ["p1_0000.nii", "p2_0001.nii"], ["case0_0000.nii", "case1_0001.nii"]),
        (["T1", "T2"], ["p/x_0000.nii", "p/x_0001.nii"], ["case0_0000.nii", "case0_0001.nii"]),
        (["T1", "T2"], ["CASE/t2.nii.gz", "CASE/T1.nii.gz"], ["case0_0001.nii.gz", "case0_0000.nii.gz"]),
        (["T1", "T1C"], ["a_T1.mha", "a_T1C.mha", "b_T1.mha"], ["case0_0000.mha", "case0_0001.mha", "case1_0000.mha"]),
        (["T1"], ["../up/..\\p_T1.nii", "LICENSE", ".hidden.nii"], ["case0.nii", "00001", "00002"]),
    ],
)
def test_files_in_a_zip_are_named_anew_by_case_and_channel(
    channels: list[str], theirs: list[str], ours: list[str]
) -> None:
    assert safe_names(theirs, tuple(channels)) == ours


def test_what_an_earlier_service_left_behind_goes(tmp_path: Path) -> None:
    """A killed container's folder that outlived it, as Kubernetes' emptyDir does."""
    (tmp_path / "segpipe-request-abc" / "scan").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    container_entrypoint.forget_requests(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
