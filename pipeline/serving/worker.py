"""The service's worker process: holds the model and segments one case at a time.

It is told what to do by lines of JSON on its standard input and answers each with one line on its standard output;
whatever anything else prints goes to standard error. It ends when its input ends, so it never outlives the service.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any

from pipeline.data.formats import read_label
from pipeline.inference.batch import Job, segment
from pipeline.inference.memory import peak_memory_gib
from pipeline.serving.engine import EngineSpec, open_predictors
from pipeline.serving.guard import unlike_training
from pipeline.serving.model import load_package
from pipeline.serving.results import structure_volumes_ml


def main(package: Path, device: str) -> None:
    """Serves requests until standard input ends.

    A request is {"images": [path, ...], "output": path, "strict": bool}, an answer {"status": "done" or "failed",
    "message", "volumes_ml", "seconds"}. The first line says {"status": "ready"}.
    """
    answers = _take_over_stdout()
    model = load_package(package)
    predictors = open_predictors(EngineSpec(model.plan, model.settings, {"": model.weights}, device))
    guard = partial(unlike_training, plan=model.plan, fingerprint=model.fingerprint)
    _answer(answers, {"status": "ready"})
    for line in sys.stdin:
        request = json.loads(line)
        job = Job("scan", tuple(Path(path) for path in request["images"]), Path(request["output"]))
        (result,) = segment([job], predictors, guard, bool(request["strict"]))
        answer: dict[str, Any] = {"status": result.status, "message": result.message, "seconds": result.seconds}
        if result.status == "done":
            answer["volumes_ml"] = structure_volumes_ml(read_label(job.output), model.labels)
        _answer(answers, {**answer, "peak_memory_gib": peak_memory_gib()})


def _take_over_stdout() -> IO[str]:
    """The stream to answer on; prints of libraries go to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(stream: IO[str], content: dict[str, Any]) -> None:
    stream.write(json.dumps(content) + "\n")
    stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
