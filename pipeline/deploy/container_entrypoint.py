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
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pipeline.base.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_OUR_FAULT,
    EXIT_USAGE,
    SegpipeError,
)
from pipeline.base.log_privacy import silence_dicom_logging
from pipeline.base.machine import check_device
from pipeline.deploy.container_paths import ContainerPaths, container_paths
from pipeline.deploy.container_version import version_text
from pipeline.deploy.predict_in_container import predict_all

SERVING = Path("/tmp/segpipe.port")  # noqa: S108, the only folder that a container with a read-only root can write
"""Holds the port while the service runs, so that the health check knows whom to ask."""


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


if __name__ == "__main__":
    sys.exit(main())
