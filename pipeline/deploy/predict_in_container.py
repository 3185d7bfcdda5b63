"""Prediction in the container: every scan of the input folder, or of grand-challenge's sockets."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import EXIT_DONE, EXIT_SOME_CASES, DataError
from pipeline.base.files import read_json
from pipeline.deploy.container_paths import ContainerPaths, check_writable
from pipeline.deploy.grand_challenge_sockets import grand_challenge_sockets


def predict_all(
    places: ContainerPaths,
    device: str,
    strict: bool,
    slug: str | None = None,
    dicom_seg: bool = False,
    uncertainty: bool = False,
    probabilities: bool = False,
) -> int:
    """Segments every scan in the input folder; `cases.csv` and `volumes.json` lie beside the segmentations.

    In grand-challenge's layout (`images/SOCKET/` in the input) segmentations go to `images/SLUG/` in the output, and
    this one process does all; else another one segments, so that one killed for want of memory costs a single case.
    A `manifest.json` in the input names the cases there. dicom_seg: write CASE.dcm too for cases that are DICOM series.
    uncertainty, probabilities: write these maps too.
    """
    # Imported here because `health` and `--version` answer at once, without any of it.
    from pipeline.deploy.dicom_seg import require_highdicom, without_dicom_seg, write_dicom_segs
    from pipeline.deploy.grand_challenge_sockets import scans_in_sockets
    from pipeline.deploy.list_scans import list_scans
    from pipeline.deploy.predict import predict
    from pipeline.deploy.result_tables import write_results
    from pipeline.packaging.model_package import load_package

    if not places.input.is_dir():
        raise DataError(f"{places.input}: there is no such folder; mount the scans there (-v $PWD/scans:/input:ro)")
    check_writable(places.output)
    if dicom_seg:
        require_highdicom()
    package = load_package(places.model)
    sockets, target = grand_challenge_sockets(places.input), places.output
    if sockets:
        target = places.output / "images" / (slug or package.seal.output_slug)
        target.mkdir(parents=True, exist_ok=True)
    channels = package.channels
    scans = scans_in_sockets(sockets, channels) if sockets else list_scans(_cases_in(places.input), channels)
    results = predict(
        package, scans, target, device, strict, isolated=not sockets, texts=False,
        uncertainty=uncertainty, probabilities=probabilities,
    )  # fmt: skip
    if dicom_seg:
        results = write_dicom_segs(scans, target, results, package)
    write_results(target, results, package)
    failed = sum(result.status == "failed" for result in results) + without_dicom_seg(results)
    return EXIT_SOME_CASES if failed else EXIT_DONE


def _cases_in(folder: Path) -> Path:
    """The folder, or the manifest of segpipe's in it that names its cases."""
    from pipeline.dataset.manifest import FORMAT  # not needed for `health` and `--version`, which answer at once

    manifest = folder / "manifest.json"
    try:
        content = read_json(manifest) if manifest.is_file() else None
    except DataError:  # somebody else's, for something else
        return folder
    return manifest if isinstance(content, dict) and content.get("format") == FORMAT else folder
