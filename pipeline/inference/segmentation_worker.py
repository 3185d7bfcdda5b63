"""Process that segments a batch, so that one killed for want of memory does not take the command with it.

It takes one request and answers with messages (`child_process.py`): the case that is `begun`, a `result` per case,
`log` lines, or the `error` that ended it.
"""

from __future__ import annotations

import logging
from dataclasses import asdict

from pipeline.base.child_process import LogToParent, read_requests, send_message, take_over_stdout
from pipeline.base.errors import SegpipeError
from pipeline.base.log_privacy import silence_dicom_logging
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segment_cases import segment_in_process
from pipeline.inference.segmentation_jobs import Job


def main() -> None:
    """Answer the one request of the parent."""
    answers = take_over_stdout()
    logging.basicConfig(level=logging.INFO, handlers=[LogToParent(answers)], format="%(message)s")
    silence_dicom_logging()
    request = next(read_requests())
    jobs = [Job.from_json(entry) for entry in request["jobs"]]

    def begun(case: str) -> None:
        send_message(answers, {"begun": case})

    try:
        spec = PredictorSpec.from_json(request["spec"])
        for result in segment_in_process(jobs, spec, request["ahead"], begun):
            send_message(answers, {"result": asdict(result)})
    except SegpipeError as error:
        send_message(answers, {"error": str(error), "exit_code": error.exit_code})


if __name__ == "__main__":
    main()
