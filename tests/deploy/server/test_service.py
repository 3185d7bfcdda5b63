"""The service, started for real: a scan in, its segmentation out in each form; who may ask; what browsers are told."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from email.parser import BytesParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.deploy.conftest import LIMITS
from tests.packaging.small_package import small_package

pytest.importorskip("httpx")
pytest.importorskip("fastapi")
from tests.deploy.server.running_service import Service, label_map, nifti, started

pytestmark = pytest.mark.slow  # each start of the service imports torch anew


def test_a_scan_gives_its_segmentation_on_its_own_grid(service: Service) -> None:
    answer = service.client.post("/predict", content=nifti())
    assert answer.status_code == 200
    image = label_map(answer.content)
    assert image.shape == (36, 50, 34)
    np.testing.assert_array_equal(image.affine, np.diag([-1.0, 1, 1, 1]))
    found = json.loads(answer.headers["X-Segpipe-Result"])
    voxels = np.asarray(image.dataobj)
    assert found["volumes_ml"] == pytest.approx(
        {"anterior": (voxels == 1).sum() / 1000, "posterior": (voxels == 2).sum() / 1000}
    )


def test_the_service_equals_segpipe_predict(service: Service, served_package: Path, tmp_path: Path) -> None:
    from pipeline.deploy.predict import predict

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").write_bytes(nifti())
    predict(served_package, tmp_path / "in", tmp_path / "out", "cpu")
    served = label_map(service.client.post("/predict", content=nifti()).content)
    expected = label_map((tmp_path / "out" / "a.nii.gz").read_bytes())
    np.testing.assert_array_equal(np.asarray(served.dataobj), np.asarray(expected.dataobj))


def test_a_form_and_raw_bytes_are_one(service: Service) -> None:
    form = service.client.post("/predict", files={"file": ("John_Doe.nii.gz", nifti())})
    assert form.status_code == 200
    assert "John" not in str(form.headers)
    assert form.content == service.client.post("/predict", content=nifti()).content


def test_a_zip_of_a_real_dicom_series_is_segmented(service: Service, segpipe_data: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (segpipe_data / "hippocampus_dicom" / "11").iterdir():
            archive.write(path, f"DICOM/Dumbledore/{path.name}")
        archive.writestr("DICOM/README.txt", "no slice")
    answer = service.client.post("/predict", content=packed.getvalue())
    assert answer.status_code == 200, answer.text
    assert label_map(answer.content).shape == (34, 50, 40)
    assert "umbledore" not in str(answer.headers)
    as_dicom = service.client.post("/predict?answer=dicom-seg", content=packed.getvalue())
    assert as_dicom.status_code == 200, as_dicom.text
    assert as_dicom.content[128:132] == b"DICM"


def test_dicom_seg_of_what_is_no_series_is_refused_before_it_is_segmented(service: Service) -> None:
    before = service.metric("segpipe_case_seconds_count")
    answer = service.client.post("/predict?answer=dicom-seg", content=nifti())
    assert answer.status_code == 422
    assert "zip of a DICOM series" in answer.json()["detail"]
    assert service.metric("segpipe_case_seconds_count") == before


def test_what_a_page_shows_is_the_scan_as_it_was_read_and_numbered_labels(service: Service) -> None:
    """A form: the segmentation to keep, the scan and the labels to draw, on one grid."""
    answer = service.client.post("/predict?answer=view", content=nifti())
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    parts = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in BytesParser().parsebytes(head + answer.content).get_payload()
    }
    assert list(parts) == ["result", "segmentation", "overlay", "scan-0"]
    assert parts["segmentation"] == service.client.post("/predict", content=nifti()).content
    scan, overlay = label_map(parts["scan-0"]), label_map(parts["overlay"])
    np.testing.assert_array_equal(np.asarray(scan.dataobj), np.asarray(label_map(nifti()).dataobj))
    assert scan.get_data_dtype() == np.int16
    np.testing.assert_array_equal(
        np.asarray(overlay.dataobj), np.asarray(label_map(parts["segmentation"]).dataobj)
    )  # label values are 1 and 2 here
    assert (scan.affine == overlay.affine).all()
    assert set(json.loads(parts["result"])["volumes_ml"]) == {"anterior", "posterior"}


def test_a_model_of_two_channels_takes_a_zip_or_4d_and_names_what_is_missing(tmp_path: Path) -> None:
    channel = {"modality": "MR", "scheme": "zscore"}
    planned = {"channels": [{"name": "T1", **channel}, {"name": "T2", **channel}]}
    package = small_package(tmp_path / "package", planned=planned)
    rng = np.random.default_rng(0)
    both = rng.uniform(0, 200, (36, 40, 34, 2)).astype(np.float32)
    one, other, together = (
        gzip.compress(nib.Nifti1Image(v, np.eye(4)).to_bytes()) for v in (both[..., 0], both[..., 1], both)
    )
    limits = {"SEGPIPE_MAX_UPLOAD_MIB": "4", "SEGPIPE_MAX_UNPACKED_MIB": "32"}
    with started(package, **limits) as service:
        numbered = _zip({"case_0000.nii.gz": one, "case_0001.nii.gz": other})
        named = _zip({"CASE/t2.nii.gz": other, "CASE/T1.nii.gz": one})
        answers = [service.client.post("/predict", content=sent) for sent in (numbered, named, together)]
        assert [answer.status_code for answer in answers] == [200] * 3, [answer.text[:200] for answer in answers]
        first, *rest = (np.asarray(label_map(answer.content).dataobj) for answer in answers)
        assert all((first == found).all() for found in rest)
        refused = service.client.post("/predict", content=_zip({"p1_0000.nii.gz": one, "p2_0001.nii.gz": other}))
        assert refused.status_code == 422 and "2 cases in it" in refused.json()["detail"]
        refused = service.client.post("/predict", content=_zip({"case_0000.nii.gz": one}))
        assert refused.status_code == 422 and "T2" in refused.json()["detail"]


def _zip(entries: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_the_model_card_is_served(service: Service) -> None:
    about = service.client.get("/model").json()
    assert about["name"] == "small"
    assert "not a medical device" in about["card"]
    assert [label["name"] for label in about["labels"]] == ["anterior", "posterior"]
    assert about["upload_mib"] == 2


@pytest.mark.parametrize("address", ["/", "/page/drop.js", "/health", "/model", "/nothing"])
def test_a_browser_is_told_to_run_nothing_foreign_and_keep_nothing(service: Service, address: str) -> None:
    headers = service.client.get(address).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-cache" if address in {"/", "/page/drop.js"} else "no-store")
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_the_page_is_not_sent_again_unless_it_changed(service: Service) -> None:
    script = service.client.get("/page/niivue.js")
    assert script.status_code == 200 and script.headers["content-type"].startswith("text/javascript")
    again = service.client.get("/page/niivue.js", headers={"If-None-Match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["", "viewer.js", "drop.html", "%2e%2e%2fhttp.py", "..%2fniivue%2fLICENSES.txt"])
def test_the_page_offers_its_own_files_and_no_others(service: Service, name: str) -> None:
    assert service.client.get(f"/page/{name}").status_code == 404


def test_a_word_that_is_no_form_of_answer_is_named(service: Service) -> None:
    answer = service.client.post("/predict?answer=picture", content=nifti())
    assert answer.status_code == 422
    assert "answer: Input should be 'segmentation', 'json'" in answer.json()["detail"]


def test_a_token_is_asked_for_where_one_is_set(served_package: Path) -> None:
    with started(served_package, **LIMITS, SEGPIPE_TOKEN="s3crét\n") as service:

        def status(given: str, address: str = "/model") -> int:
            return service.client.get(address, headers={"Authorization": given.encode()}).status_code

        assert service.client.get("/health").status_code == service.client.get("/").status_code == 200
        assert service.client.get("/model").status_code == service.client.get("/metrics").status_code == 401
        refused = service.client.post("/predict", content=b"x", headers={"Authorization": "Bearer no"})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert status("Bearer s3crét") == status("bearer s3crét") == 200
        assert status("s3crét") == status("Bearer x") == status("Basic s3crét") == status("Bearer s3cré") == 401
        assert "s3cr" not in service.output.read_text()


def test_volumes_that_no_proxy_would_let_through_as_a_header_are_left_to_other_forms() -> None:
    from pipeline.deploy.server.predict_endpoint import result_header

    few, many = ({f"structure {i}": float(i) for i in range(n)} for n in (3, 200))
    assert json.loads(result_header({"volumes_ml": few}))["volumes_ml"] == few
    assert json.loads(result_header({"volumes_ml": many}))["volumes_ml"] is None


def test_gzip_is_not_needed_to_send_a_scan(service: Service) -> None:
    assert service.client.post("/predict", content=gzip.decompress(nifti())).status_code == 200
