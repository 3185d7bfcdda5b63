"""Serving of the model with uvicorn until it is asked to end."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from types import FrameType

from pipeline.base.errors import EXIT_DONE, missing_extra

try:
    import uvicorn

    from pipeline.deploy.server.app import make_app
except ImportError as error:
    raise missing_extra(str(error.name), "serve", "segpipe serve") from None

from pipeline.base.log_privacy import silence_dicom_logging
from pipeline.deploy.server.server_settings import read_limits
from pipeline.deploy.server.supervisor import Supervisor
from pipeline.packaging.model_package import load_package

log = logging.getLogger(__name__)


def serve(package: Path, host: str = "127.0.0.1", port: int = 8000, device: str = "auto") -> int:
    """Serves the model until SIGTERM or Ctrl-C, then finishes the running case and returns the exit code.

    Raises DataError for a package that is not whole, ConfigError for a limit that is no number.
    """
    silence_dicom_logging()
    limits = read_limits(os.environ)
    model = load_package(package)
    supervisor = Supervisor(model.folder, device, limits.queue, limits.timeout_s)
    app = make_app(model, supervisor, limits)
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=int(limits.timeout_s),
    )  # fmt: skip
    log.info("serving %s %s on http://%s:%d", model.name, model.version, host, port)
    server = _Server(config, supervisor)
    supervisor.on_startup_failure = server.give_up
    server.run()
    return server.exit_code


class _Server(uvicorn.Server):
    """Tells the supervisor at once that the end has begun, so that waiting cases are sent away."""

    def __init__(self, config: uvicorn.Config, supervisor: Supervisor) -> None:
        super().__init__(config)
        self.supervisor, self.exit_code = supervisor, EXIT_DONE

    def give_up(self, code: int) -> None:
        """Ends the service with a worker's exit code: what keeps the model from working is no passing trouble."""
        log.error("no worker can work with this model here, so the service ends; what it said stands above")
        self.exit_code, self.should_exit = code, True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.supervisor.draining = True
        log.info("%s: finishing the running case", signal.Signals(sig).name)
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # a clean end: the signal is not raised again
