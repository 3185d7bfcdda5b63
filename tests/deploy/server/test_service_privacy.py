"""Nothing that names a patient comes out of the service or the container.

Not in answers, headers, figures, logs, files, or what they keep.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("pydicom")
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from pipeline.base.errors import EXIT_DONE, EXIT_SOME_CASES
from pipeline.deploy.container_paths import ContainerPaths
from pipeline.deploy.predict_in_container import predict_all
from tests.deploy.server.running_service import Service, nifti
from tests.packaging.small_package import small_package

pytestmark = pytest.mark.slow  # each start of the service imports torch anew

NAME = "Dumbledore^Albus"
SECRETS = ("Dumbledore", "Albus", "PID-4711", "ACC-0815", "1.2.826.0.1.3680043.4711", "Hogwarts", "18810826")
"""Name, id, accession number, UIDs, institution, date of birth."""
SHAPE = (40, 44)


def _series(slices: int = 30, **changes: Any) -> dict[str, bytes]:
    """File names, with the patient's in them, to the files of one series; changes: what is otherwise in every file."""
    files = {}
    for index in range(slices):
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = MRImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = f"1.2.826.0.1.3680043.4711.1.{index}"
        file.SeriesInstanceUID, file.StudyInstanceUID = "1.2.826.0.1.3680043.4711.2", "1.2.826.0.1.3680043.4711.3"
        file.FrameOfReferenceUID, file.Modality = "1.2.826.0.1.3680043.4711.4", "MR"
        file.PatientName, file.PatientID, file.AccessionNumber = NAME, "PID-4711", "ACC-0815"
        file.InstitutionName, file.PatientBirthDate, file.SeriesDescription = "Hogwarts", "18810826", NAME
        file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, index], [1, 0, 0, 0, 1, 0]
        file.SliceThickness, file.PositionReferenceIndicator = 1, ""
        file.PixelSpacing, file.SamplesPerPixel, file.PhotometricInterpretation = [1, 1], 1, "MONOCHROME2"
        file.Rows, file.Columns, file.InstanceNumber = *SHAPE, index + 1
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.PixelData = np.random.default_rng(index).integers(0, 200, SHAPE, np.uint16).tobytes()
        for keyword, value in changes.items():
            setattr(file, keyword, value)
        stream = io.BytesIO()
        file.save_as(stream, enforce_file_format=True)
        files[f"{NAME}/PID-4711/{index}.dcm"] = stream.getvalue()
    return files


def _zip(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _without(files: dict[str, bytes], index: int) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.endswith(f"/{index}.dcm")}


def _cut(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content[:700] for name, content in files.items()}


def _odd(**changes: Any) -> dict[str, bytes]:
    """A series with values that DICOM does not allow, which libraries quote in their warnings."""
    with pydicom.config.disable_value_validation():
        return _series(**changes)


SERIES = {
    "sound": lambda: _series(),
    "a birth date that is none": lambda: _odd(PatientBirthDate="Dumbledore"),
    "a study date and time that are none": lambda: _odd(StudyDate="PID-4711", StudyTime="Hogwarts"),
    "identifiers that are none": lambda: _odd(
        StudyInstanceUID="1.2.826.0.1.3680043.4711.003.Albus", SeriesInstanceUID="1.2.826.0.1.3680043.4711.02"
    ),
    "a name that is too long": lambda: _odd(PatientName="Dumbledore" * 30, PatientID="PID-4711" * 20),
    "a sex that is none": lambda: _odd(PatientSex="Dumbledore, Albus"),
    "an age that is none": lambda: _odd(PatientAge="Dumbledore", SeriesNumber="0", EthnicGroup=NAME),
    "a slice missing": lambda: _without(_series(), 7),
    "files cut off": lambda: _cut(_series()),
    "two series": lambda: _series(4) | {f"b{n}": c for n, c in _series(4, SeriesInstanceUID="1.2.3").items()},
    "colours": lambda: _series(4, SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    "pixels missing": lambda: _series(4, PixelData=b"\0\0"),
    "no place": lambda: _series(4, ImagePositionPatient=None),
    "several frames": lambda: _series(4, NumberOfFrames=5),
}


@pytest.mark.parametrize("name", SERIES)
def test_no_answer_no_log_and_no_figure_names_the_patient(service: Service, name: str) -> None:
    packed = _zip(SERIES[name]())
    for form in ("segmentation", "json", "view", "dicom-seg"):
        answer = service.client.post(f"/predict?answer={form}", content=packed)
        print(f"{name}, {form}: {answer.status_code} {answer.text if answer.status_code != 200 else ''}")
        assert answer.status_code in {200, 422}, answer.text
        _names_nobody(str(answer.headers), f"headers of {form}")
        if answer.status_code != 200:
            _names_nobody(answer.text, form)
        elif form == "view":
            for part in answer.content.split(b"\r\n--"):
                if b"segmentation.dcm" not in part:  # DICOM must say whose it is
                    _names_nobody(_unpacked(part).decode("latin-1"), form)
        elif form != "dicom-seg":
            _names_nobody(_unpacked(answer.content).decode("latin-1"), form)
    _names_nobody(service.client.get("/metrics").text, "/metrics")
    _names_nobody(service.output.read_text(), "the log")
    _names_nobody(" ".join(str(path) for path in service.temporary.rglob("*")), "names of files that stay")


def test_a_damaged_file_is_answered_and_names_nobody_either(service: Service) -> None:
    """Whatever bytes of a header become: libraries quote what they cannot read."""
    workers, random, sound = service.metric("segpipe_worker_starts"), np.random.default_rng(3), _series(4)
    for number in range(60):
        files = dict(sound)
        name = list(files)[number % len(files)]
        changed = bytearray(files[name])
        for place in random.integers(132, 900, random.integers(1, 4)):
            changed[place] = random.integers(0, 256)
        files[name] = bytes(changed)
        answer = service.client.post("/predict?answer=json", content=_zip(files))
        assert answer.status_code in {200, 415, 422}, answer.text
        _names_nobody(answer.text, f"number {number}")
    _names_nobody(service.output.read_text(), "the log")
    assert service.metric("segpipe_worker_starts") == workers


def test_texts_of_a_nifti_header_do_not_come_back(service: Service) -> None:
    content = nifti(description=NAME)
    assert NAME.encode() in gzip.decompress(content)
    for form in ("segmentation", "view"):
        answer = service.client.post(f"/predict?answer={form}", content=content)
        for part in answer.content.split(b"\r\n--"):
            _names_nobody(_unpacked(part).decode("latin-1"), form)


def test_names_of_files_go_nowhere(service: Service) -> None:
    answer = service.client.post("/predict", files={"file": (f"{NAME}.nii.gz", b"no scan")})
    assert answer.status_code == 415
    _names_nobody(answer.text + str(answer.headers) + service.output.read_text(), "answer or log")


def _unpacked(part: bytes) -> bytes:
    """A part with its gzip stream unpacked, where it has one."""
    start = part.find(b"\x1f\x8b\x08")
    return part if start < 0 else part[:start] + gzip.decompress(part[start:])


def _names_nobody(text: str, where: str) -> None:
    found = [secret for secret in SECRETS if secret.lower() in text.lower()]
    assert not found, f"{where}: {found}"


@pytest.mark.parametrize("kind", ["sound", "without a slice"])
def test_nothing_comes_out_of_a_batch_container(tmp_path, capfd, caplog, kind):
    """Of a series and of a NIfTI whose description names somebody, whether it is segmented or refused."""
    caplog.set_level("DEBUG")
    series = _series() if kind == "sound" else _without(_series(), 7)
    folder = tmp_path / "in" / "case_1"
    folder.mkdir(parents=True)
    for name, content in series.items():
        (folder / name.replace("/", "-")).write_bytes(content)
    image = nib.Nifti1Image(np.random.default_rng(0).uniform(0, 200, (36, 40, 36)), np.eye(4))
    image.header["descrip"] = NAME.encode()
    nib.save(image, tmp_path / "in" / "case_2.nii.gz")
    (tmp_path / "out").mkdir()
    places = ContainerPaths(tmp_path / "in", tmp_path / "out", small_package(tmp_path / "model"))
    code = predict_all(places, "cpu", strict=False)
    assert code == (EXIT_DONE if kind == "sound" else EXIT_SOME_CASES)
    printed = capfd.readouterr()
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"case_2.nii.gz", "cases.csv", "volumes.json"} <= {path.name for path in written}
    texts = [
        printed.out.encode(),
        printed.err.encode(),
        caplog.text.encode(),
        *(path.name.encode() for path in written),
    ]
    texts += [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in written]
    for secret in SECRETS:
        assert not any(secret.encode() in text for text in texts), secret
