"""`segpipe predict`: scans in, segmentations out, with a model package and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipeline import __version__
from pipeline.base.terminal import format_duration, progress
from pipeline.deploy.group_scan_files import Scan
from pipeline.deploy.list_scans import list_scans
from pipeline.deploy.prediction_jobs import prediction_jobs
from pipeline.inference.case_journal import JOURNAL, open_case_journal
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.inference.segment_cases import segment_in_process
from pipeline.inference.segment_in_subprocess import segment_in_subprocess
from pipeline.inference.segmentation_jobs import CaseResult
from pipeline.io.image_file_names import image_ending
from pipeline.packaging.model_package import ModelPackage, load_package

log = logging.getLogger(__name__)


def predict(
    package: Path | ModelPackage,
    inputs: Path | Sequence[Scan],
    output: Path,
    device: str = "auto",
    strict: bool = False,
    settings: PredictorConfig | None = None,
    isolated: bool = True,
    backend: Literal["auto", "torch", "onnx", "openvino"] | None = None,
    texts: bool = True,
    uncertainty: bool = False,
    probabilities: bool = False,
) -> list[CaseResult]:
    """Segments every scan of `inputs` (file, folder, manifest or scans) and returns what became of each.

    package: its folder or zip, or one that is open. output: a folder, or a file where there is one scan. settings:
    instead of the package's own. strict: refuse scans unlike those of the training data. A scan that cannot be
    segmented is named and the others go on. In a folder, what an earlier call, however it ended, wrote of the same scan
    with the same package and settings is not done again. isolated: work in a process of its own, which may be killed
    for want of memory without ending this one. backend: what runs the networks, instead of what the settings say.
    texts: take over a header's free text, which may hold a name. uncertainty, probabilities: write these too.
    Raises DataError (nothing to segment, a damaged package) and ConfigError.
    """
    model = package if isinstance(package, ModelPackage) else load_package(package)
    chosen = settings or model.settings
    asked = {"backend": backend, "uncertainty": uncertainty or None, "probabilities": probabilities or None}
    chosen = chosen.model_copy(update={key: value for key, value in asked.items() if value is not None})
    scans = list_scans(inputs, model.channels) if isinstance(inputs, Path) else inputs
    is_file = isinstance(inputs, Path) and inputs.is_file() and bool(image_ending(inputs))
    jobs, faults = prediction_jobs(scans, is_file, output, texts)
    request = {
        "segpipe": __version__,
        "package": model.digest,
        "settings": chosen.model_dump(mode="json"),
        "strict": strict,
    }
    journal = open_case_journal(output, jobs, request)
    left = journal.left_of(jobs) if journal else jobs
    results = {fault.id: fault for fault in faults} | ({} if journal is None else journal.results)
    if len(left) < len(jobs):
        log.info("%d of %d cases are done already, by %s", len(jobs) - len(left), len(jobs), output / JOURNAL)
    for fault in faults:
        _say(fault)
    spec = PredictorSpec(model.plan, chosen, {"": model.weights}, device, model.fingerprint, strict)
    with progress("predict", len(jobs), len(jobs) - len(left)) as bar:
        for result in (segment_in_subprocess if isolated else segment_in_process)(left, spec):
            results[result.id] = result
            if journal is not None:
                journal.add(result)
            bar.advance(note=result.id)
            _say(result)
    return [results[scan.id] for scan in scans]


def _say(result: CaseResult) -> None:
    if result.status == "failed":
        log.warning("%s  failed: %s", result.id, result.message)
    else:
        log.info(
            "%s  done in %s%s",
            result.id,
            format_duration(result.seconds),
            f"; {result.message}" if result.message else "",
        )
