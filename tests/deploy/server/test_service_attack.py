"""Uploads that are no sound scan: each gets a sentence, costs no memory, and reaches no other file."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

pytest.importorskip("httpx")
pytest.importorskip("fastapi")
from tests.deploy.server.running_service import Service, nifti

pytestmark = pytest.mark.slow  # each start of the service imports torch anew

MIB = 2**20
MOST_MIB = 24
"""What an upload of 2 MiB may cost while it is looked at; the bombs below unpack to 54 MiB and more."""


def _promising(shape: tuple[int, int, int]) -> bytes:
    """A NIfTI whose header promises more voxels than it has."""
    data = bytearray(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes())
    struct.pack_into("<8h", data, 40, 3, *shape, 1, 1, 1, 1)
    return gzip.compress(bytes(data))


def _zip(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _encrypted() -> bytes:
    """A zip whose entry says that it is encrypted (bit 0 of the flags, in both headers)."""
    data = bytearray(_zip({"a.nii.gz": nifti()}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def _displaced() -> bytes:
    """A zip whose directory is said to lie further behind than it does."""
    data = bytearray(_zip({"a.nii.gz": nifti()}))
    end = data.index(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 16, struct.unpack_from("<I", data, end + 16)[0] + 100)
    return bytes(data)


def _lying() -> bytes:
    """A zip bomb whose headers say that it unpacks to 400 bytes."""
    data = bytearray(_zip({"scan.nii": bytes(100 * MIB)}))
    struct.pack_into("<I", data, 22, 400)
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 400)
    return bytes(data)


def _long_directory() -> bytes:
    """A zip whose directory lists one entry 100,000 times; its end, which has two bytes for their number, says 1."""
    data = _zip({"a.nii": b"x"})
    directory, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    record = data[directory:end] * 100_000
    tail = bytearray(data[end:])
    struct.pack_into("<I", tail, 12, len(record))
    return data[:directory] + record + bytes(tail)


def _long_directory_behind_a_comment() -> bytes:
    """The same, where a second end (zip64) says so, which stands as far from the file's end as it can."""
    data = _long_directory()
    directory, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    second = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 100_000, 100_000, end - directory, directory)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    first = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 46, directory, 65535)
    return data[:end] + second + locator + first + bytes(65535)


def _deflated_dicom() -> bytes:
    """A DICOM file in the syntax that is deflated as a whole: 54 MiB in 54 KiB."""
    meta = b"\x02\x00\x10\x00UI" + struct.pack("<H", 22) + b"1.2.840.10008.1.2.1.99"
    group = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(meta))
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeezed.compress(bytes(54 * MIB)) + squeezed.flush()
    return bytes(128) + b"DICM" + group + meta + body


def _metaimage(*further: str, data: bytes = b"") -> bytes:
    lines = ["ObjectType = Image", "NDims = 3", "DimSize = 10 10 4", "ElementSpacing = 1 1 1", *further]
    return "\n".join([*lines, ""]).encode() + data


def _nrrd(*further: str, data: bytes = b"") -> bytes:
    lines = ["NRRD0004", "type: unsigned char", "dimension: 3", "sizes: 10 10 4", "encoding: raw", *further]
    return "\n".join([*lines, "", ""]).encode() + data


def _with_header(offset: int, form: str, *values: float) -> bytes:
    data = bytearray(gzip.decompress(nifti((20, 20, 20))))
    struct.pack_into(form, data, offset, *values)
    return gzip.compress(bytes(data))


PLACED = ("space: left-posterior-superior", "space directions: (1,0,0) (0,1,0) (0,0,1)")
VOXELS = "ElementType = MET_UCHAR"
ATTACKS = {
    "empty": (b"", 415),
    "wrong type": (b"%PDF-1.7 is no scan", 415),
    "gzip of text": (gzip.compress(b"hello" * 1000), 422),
    "truncated": (nifti()[:2000], 422),
    "truncated header": (gzip.decompress(nifti())[:349], 422),
    "a false promise": (_promising((30000, 30000, 30000)), 422),
    "gzip bomb": (_promising((300, 300, 300)) + gzip.compress(bytes(54 * MIB)), 413),
    "larger than allowed": (os.urandom(3 * MIB), 413),
    "voxels that swell on the model's grid": (nifti((20, 20, 20), spacing_mm=50), 413),
    "4D": (nifti((20, 20, 20, 5)), 422),
    "2D": (nifti((20, 20)), 422),
    "no voxels": (_with_header(40, "<4h", 3, 0, 20, 20), 422),
    "negative size": (_with_header(40, "<4h", 3, -5, 20, 20), 422),
    "not a number as place": (_with_header(280, "<12f", *[float("nan")] * 12), 422),
    "voxels of no size": (_with_header(280, "<12f", *[0.0] * 12), 422),
    "colours": (_with_header(70, "<2h", 128, 24), 422),
    "complex numbers": (_with_header(70, "<2h", 32, 64), 422),
    "voxels far behind": (_with_header(108, "<f", 3e9), 422),
    "voxels nowhere": (_with_header(108, "<f", float("nan")), 422),
    "zip bomb": (_zip({"scan.nii": bytes(100 * MIB)}), 413),
    "zip bomb that lies": (_lying(), 422),
    "zip bomb of many parts": (_zip({f"{k}.nii": bytes(MIB) for k in range(40)}), 413),
    "zip that begins before itself": (_displaced(), 422),
    "zip in a zip": (_zip({"scan.zip": _zip({"a.nii.gz": nifti()})}), 415),
    "zip of many files": (_zip({f"{k}.dcm": b"" for k in range(5000)}), 413),
    "zip that climbs": (_zip({"../../../tmp/segpipe-was-here.nii": b"x" * 400, "/etc/segpipe-was-here": b"x"}), 422),
    "zip without scans": (_zip({"readme.txt": b"hello"}), 415),
    "zip packed with LZMA": (_zip({"a.nii.gz": nifti()}, zipfile.ZIP_LZMA), 422),
    "zip with a password": (_encrypted(), 422),
    "two scans": (_zip({"a.nii.gz": nifti(), "b.nii.gz": nifti()}), 422),
    "two patients": (_zip({"p1_0000.nii.gz": nifti(), "p2_0000.nii.gz": nifti()}), 422),
    "two patients in folders": (_zip({"p1/a_0000.nii.gz": nifti(), "p2/a_0000.nii.gz": nifti()}), 422),
    "one scan twice": (_zip({"a/b_0000.nii.gz": nifti(), "a\\b_0000.nii.gz": nifti()}), 422),
    "zip with a long directory": (_long_directory(), 413),
    "zip with a long directory behind a comment": (_long_directory_behind_a_comment(), 413),
    "deflated DICOM": (_zip({"1.dcm": _deflated_dicom()}), 422),
    "NRRD of endless lines": (_nrrd("line skip: 1000000000000000", data=bytes(400)), 422),
    "MetaImage of many axes": (
        _metaimage(VOXELS, "NDims = 20000", f"DimSize = {'1 ' * 20000}", "ElementDataFile = LOCAL", data=bytes(400)),
        422,
    ),
    "broken zip": (_zip({"a.nii.gz": nifti()})[:500], 422),
    "zip of a header without its voxels": (_zip({"a.mhd": _metaimage(VOXELS, "ElementDataFile = /etc/passwd")}), 415),
    "damaged DICOM": (_zip({f"{k}.dcm": bytes(128) + b"DICM" + os.urandom(2000) for k in range(3)}), 422),
    "truncated MetaImage": (_metaimage(VOXELS, "ElementDataFile = LOCAL", data=bytes(100)), 422),
    "truncated NRRD": (_nrrd(data=bytes(100)), 422),
    "MetaImage bomb": (
        _metaimage("CompressedData = True", VOXELS, "ElementDataFile = LOCAL").replace(b"10 10 4", b"900 900 900"),
        422,
    ),
}


@pytest.fixture(scope="module")
def warm(service: Service) -> Service:
    """The first case of a worker takes memory that it keeps."""
    for _ in range(3):
        service.client.post("/predict?answer=view", content=nifti())
    return service


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_sound_scan_gets_a_sentence_and_costs_nothing(warm: Service, name: str) -> None:
    content, status = ATTACKS[name]
    workers = warm.metric("segpipe_worker_starts")
    before = _forget_peaks(warm)
    answer = warm.client.post("/predict?answer=view", content=content)
    assert answer.status_code == status, answer.text
    _is_a_sentence(answer.json()["detail"])
    cost = _peaks(warm) - before
    print(f"{name}: {answer.status_code} {answer.json()['detail']} ({cost / MIB:.1f} MiB)")
    assert cost < MOST_MIB * MIB
    assert not Path("/tmp/segpipe-was-here.nii").exists()
    assert not Path("/etc/segpipe-was-here").exists()
    assert warm.metric("segpipe_worker_starts") == workers


SECRET = b"voxels of somebody else" * 40
"""Enough for the 400 voxels that the headers promise."""
ELSEWHERE = {
    "MetaImage": lambda path: _metaimage(VOXELS, f"ElementDataFile = {path}"),
    "MetaImage, other letters first": lambda path: _metaimage(
        VOXELS, "elementdatafile = LOCAL", f"ElementDataFile = {path}", data=bytes(400)
    ),
    "MetaImage, in a comment first": lambda path: _metaimage(
        VOXELS, "Comment = ElementDataFile = LOCAL", f"ElementDataFile = {path}", data=bytes(400)
    ),
    "MetaImage, as a list": lambda path: _metaimage(VOXELS, "ElementDataFile = LIST", str(path)),
    "MetaImage, as a pattern": lambda path: _metaimage(VOXELS, f"ElementDataFile = {path} 1 1 1"),
    "NRRD": lambda path: _nrrd(f"data file: {path}"),
    "NRRD, other letters": lambda path: _nrrd(f"DataFile: {path}"),
    "NRRD, after a carriage return": lambda path: _nrrd(f"#\r\rx\ndata file: {path}", data=bytes(400)),
    "NRRD, as a list": lambda path: _nrrd("data file: LIST", str(path)),
    "zip of a pair": lambda path: _zip({"a.nhdr": _nrrd(f"data file: {path}"), "b.nrrd": _nrrd(f"data file: {path}")}),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_header_that_names_a_file_of_the_server_does_not_get_it(service: Service, name: str) -> None:
    secret = service.temporary / "secret.raw"
    secret.write_bytes(SECRET)
    answer = service.client.post("/predict?answer=view", content=ELSEWHERE[name](secret))
    assert answer.status_code == 422, answer.status_code
    _is_a_sentence(answer.json()["detail"])
    assert "secret" not in answer.text


def test_whole_files_of_these_kinds_are_taken(service: Service) -> None:
    """The counterpart of the refusals above."""
    voxels = np.random.default_rng(0).integers(0, 200, 400, np.uint8).tobytes()
    sound = {
        "mha": _metaimage(VOXELS, "ElementDataFile = LOCAL", data=voxels),
        "nrrd": _nrrd(*PLACED, data=voxels),
        "zip": _zip({"some folder/scan.nii.gz": nifti()}),
    }
    for kind, content in sound.items():
        answer = service.client.post("/predict?answer=json", content=content)
        assert answer.status_code == 200, (kind, answer.text)


_FORM = {"Content-Type": "multipart/form-data; boundary=q"}
FORMS = {
    "no file": (
        {"content": b'--q\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--q--', "headers": _FORM},
        400,
    ),
    "two files": ({"files": [("a", ("a", b"x")), ("b", ("b", b"y"))]}, 400),
    "many fields": ({"data": {str(k): "b" for k in range(20)}, "files": {"f": ("a", b"x")}}, 400),
    "a field as large as a file": ({"data": {"a": "b" * 1_500_000}, "files": {"f": ("a", b"x")}}, 400),
    "no boundary": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
    "cut off": ({"content": b"--q\r\nCon", "headers": _FORM}, 400),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_is_none_gets_a_sentence(service: Service, name: str) -> None:
    request, status = FORMS[name]
    answer = service.client.post("/predict", **request)
    assert answer.status_code == status, answer.text
    _is_a_sentence(answer.json()["detail"])


@pytest.mark.parametrize("kind", ["NIfTI", "MetaImage", "NRRD"])
def test_a_scan_with_any_header_byte_changed_is_answered(service: Service, kind: str) -> None:
    """Whatever a byte of the header becomes: a segmentation or a sentence, and the same worker all along."""
    workers, random = service.metric("segpipe_worker_starts"), np.random.default_rng(7)
    sound = {
        "NIfTI": gzip.decompress(nifti((12, 12, 12))),
        "MetaImage": _metaimage(VOXELS, "ElementDataFile = LOCAL", data=bytes(range(200)) * 2),
        "NRRD": _nrrd(*PLACED, data=bytes(range(200)) * 2),
    }[kind]
    for place in random.integers(0, 348 if kind == "NIfTI" else len(sound) - 400, 60):
        changed = bytearray(sound)
        changed[place] = random.integers(0, 256)
        answer = service.client.post("/predict?answer=json", content=bytes(changed))
        assert answer.status_code in {200, 413, 415, 422}, (place, changed[place], answer.text)
    assert service.metric("segpipe_worker_starts") == workers


def _is_a_sentence(detail: str) -> None:
    assert len(detail) > 10
    assert "/tmp" not in detail and "Error" not in detail and "Exception" not in detail


def _forget_peaks(service: Service) -> int:
    """Makes the peak memory of service and worker count from now on; what both have now."""
    for process in service.processes():
        Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="utf-8")
    return _peaks(service)


def _peaks(service: Service) -> int:
    return sum(_peak(process) for process in service.processes())


def _peak(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
