"""The entry point of the container image: `predict` (default), `serve`, `health` and `--version`.

No network, writes to /output and /tmp only. Places come from the environment with the defaults of plain
`docker run`; those of MONAI Deploy (HOLOSCAN_*, MONAI_*) are honoured, and grand-challenge's folders are recognised.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pipeline import __version__
from pipeline.base.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_OUR_FAULT,
    EXIT_SOME_CASES,
    EXIT_USAGE,
    DataError,
    SegpipeError,
)
from pipeline.base.files import read_json
from pipeline.base.log_privacy import silence_dicom_logging
from pipeline.base.machine import check_device
from pipeline.deploy.grand_challenge_sockets import grand_challenge_sockets

SERVING = Path("/tmp/segpipe.port")  # noqa: S108, the only folder that a container with a read-only root can write
"""Holds the port while the service runs, so that the health check knows whom to ask."""


@dataclass(frozen=True)
class ContainerPaths:
    """Where the container reads and writes."""

    input: Path
    output: Path
    model: Path


def container_paths(environment: Mapping[str, str]) -> ContainerPaths:
    """The folders that the environment names; the first variable that is set counts."""

    work = Path(environment.get("HOLOSCAN_WORKDIR") or "/")  # what MONAI Deploy's relative places are relative to

    def first(default: str, *names: str) -> Path:
        return work / next((environment[name] for name in names if environment.get(name)), default)

    return ContainerPaths(
        input=first("/input", "SEGPIPE_INPUT", "HOLOSCAN_INPUT_PATH", "MONAI_INPUTPATH"),
        output=first("/output", "SEGPIPE_OUTPUT", "HOLOSCAN_OUTPUT_PATH", "MONAI_OUTPUTPATH"),
        model=_package_in(first("/opt/ml/model", "HOLOSCAN_MODEL_PATH", "MONAI_MODELPATH", "SEGPIPE_MODEL")),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code (0 done, 2 usage, 3 data, 4 some cases failed, 1 our fault)."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    silence_dicom_logging()
    # The first process of a container ignores SIGTERM unless it says what to do: `docker stop` would wait, then kill.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if arguments.command == "health":
            return health()
        places = container_paths(os.environ)
        if arguments.command == "serve":
            return _serve(places, arguments)
        slug = os.environ.get("SEGPIPE_OUTPUT_SLUG")
        maps = {"uncertainty": arguments.uncertainty, "probabilities": arguments.probabilities}
        return predict_all(places, arguments.device, arguments.strict, slug, arguments.dicom_seg, **maps)
    except SegpipeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"{error.filename or 'reading or writing'}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE


def _interrupt(signum: int, frame: object) -> NoReturn:  # noqa: ARG001, a signal handler's arguments
    raise KeyboardInterrupt


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
    _check_writable(places.output)
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


def health() -> int:
    """0 where the service answers, or where none is meant to run (a batch container)."""
    if not SERVING.is_file():
        return EXIT_DONE
    from http.client import HTTPConnection, HTTPException

    try:  # not by urllib, which would ask the proxy that docker may put into every container's environment
        connection = HTTPConnection("127.0.0.1", int(SERVING.read_text(encoding="utf-8")), timeout=4)
        connection.request("GET", "/health")
        return EXIT_DONE if connection.getresponse().status == 200 else EXIT_OUR_FAULT
    except (HTTPException, OSError, ValueError):
        return EXIT_OUR_FAULT


def version_text() -> str:
    """The version, and what the image was built from where it says so."""
    info = Path(sys.prefix) / "BUILD.info"
    return info.read_text(encoding="utf-8") if info.is_file() else f"segpipe: {__version__}\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="segpipe container", description="Segments the scans in /input to /output.")
    parser.add_argument("--version", action=_Version, nargs=0, help="versions, and every installed package")
    parser.add_argument("command", nargs="?", default="predict", choices=("predict", "serve", "health"))
    parser.add_argument("--device", default=os.environ.get("SEGPIPE_DEVICE", "auto"), help="auto, cuda, cuda:N, cpu")
    parser.add_argument("--dicom-seg", action="store_true", help="write DICOM-SEG too for DICOM series")
    parser.add_argument(
        "--uncertainty", action="store_true", help="write maps of the uncertainty, and a score per case"
    )
    parser.add_argument("--probabilities", action="store_true", help="write the probability of every structure")
    parser.add_argument("--strict", action="store_true", help="refuse scans unlike those the model was trained on")
    parser.add_argument("--host", default="0.0.0.0", help="serve: address to listen on")  # noqa: S104, a container's own
    parser.add_argument("--port", type=int, default=8000, help="serve: port to listen on")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version_text(), end="")
        parser.exit(EXIT_DONE)


def _serve(places: ContainerPaths, arguments: argparse.Namespace) -> int:
    from pipeline.deploy.server.serve import serve

    check_device(arguments.device)
    forget_requests(Path(tempfile.gettempdir()))
    SERVING.write_text(str(arguments.port), encoding="utf-8")
    try:
        return serve(places.model, host=arguments.host, port=arguments.port, device=arguments.device)
    finally:
        SERVING.unlink(missing_ok=True)


def forget_requests(temporary: Path) -> None:
    """Removes what an earlier service left: where /tmp outlives a killed container (Kubernetes' emptyDir does), its
    patients' scans would too."""
    from pipeline.deploy.server.predict_endpoint import REQUEST_FOLDER  # the slim image has no FastAPI

    for left in temporary.glob(f"{REQUEST_FOLDER}*"):
        shutil.rmtree(left, ignore_errors=True)


def _package_in(folder: Path) -> Path:
    """The package in a model folder: the folder itself, or the one folder or zip in it (MONAI Deploy mounts such)."""
    if not folder.is_dir() or (folder / "package.json").is_file():
        return folder
    inner = [path for path in folder.iterdir() if path.suffix == ".zip" or (path / "package.json").is_file()]
    return inner[0] if len(inner) == 1 else folder


def _check_writable(output: Path) -> None:
    """Says at once, before a model is loaded, that results could not be written (MONAI Deploy's old complaint)."""
    if not output.is_dir() or not os.access(output, os.W_OK):
        owner = f"user {os.getuid()}:{os.getgid()}"
        raise DataError(
            f"{output}: {owner} cannot write there; make the folder before, and run with --user $(id -u):$(id -g)"
        )


if __name__ == "__main__":
    sys.exit(main())
