"""The process that segments a batch, so that one killed for want of memory does not take the command with it.

It is told what to do by one line of JSON on its standard input and answers with lines on its standard output: the case
that is `begun`, a `result` per case, `log` lines, or the `error` that ended it. It ends when its input ends, so it
never outlives the command, however that ends.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from dataclasses import asdict
from typing import IO, Any

from pipeline.base.errors import SegpipeError
from pipeline.base.log_privacy import silence_dicom_logging
from pipeline.inference.predictor_spec import EngineSpec
from pipeline.inference.segmentation_jobs import Job


def main() -> None:
    """Answers the one request on standard input."""
    answers = _take_over_stdout()
    logging.basicConfig(level=logging.INFO, handlers=[_LogLines(answers)], format="%(message)s")
    silence_dicom_logging()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    from pipeline.inference.run_isolated import segment_in_process

    jobs = [Job.from_json(entry) for entry in request["jobs"]]
    try:
        spec = EngineSpec.from_json(request["spec"])
        for result in segment_in_process(jobs, spec, request["ahead"], lambda case: _answer(answers, {"begun": case})):
            _answer(answers, {"result": asdict(result)})
    except SegpipeError as error:
        _answer(answers, {"error": str(error), "exit_code": error.exit_code})


def _take_over_stdout() -> IO[str]:
    """The stream to answer on; prints of libraries go to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _end_with_the_command() -> None:
    sys.stdin.read()
    os._exit(1)


def _answer(stream: IO[str], content: dict[str, Any]) -> None:
    stream.write(json.dumps(content) + "\n")
    stream.flush()


class _LogLines(logging.Handler):
    """Hands log lines of this program to the command."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self.stream = stream
        self.addFilter(lambda record: record.name.startswith("pipeline"))

    def emit(self, record: logging.LogRecord) -> None:
        _answer(self.stream, {"log": record.getMessage(), "level": record.levelno})


if __name__ == "__main__":
    main()
