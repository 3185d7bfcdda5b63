"""Command `predict`: scans in, segmentations out, with a model package."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.base.errors import EXIT_DONE, EXIT_SOME_CASES
from pipeline.base.heap import keep_freed_memory
from pipeline.deploy.dicom_seg import require_highdicom, without_dicom_seg, write_dicom_segs
from pipeline.deploy.list_scans import list_scans
from pipeline.deploy.predict import predict
from pipeline.deploy.result_tables import results_table
from pipeline.packaging.model_package import load_package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--model", type=Path, required=True, metavar="PACKAGE")
    parser.add_argument("--input", type=Path, required=True, metavar="FILE|DIR|MANIFEST")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE|DIR")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu")
    parser.add_argument("--backend", choices=("auto", "torch", "onnx", "openvino"), help="what runs the networks")
    parser.add_argument("--uncertainty", action="store_true", help="write maps of the entropy too, and score the cases")
    parser.add_argument("--probabilities", action="store_true", help="write the probability of every structure too")
    parser.add_argument("--dicom-seg", action="store_true", help="write CASE.dcm (DICOM-SEG) too for DICOM series")
    parser.add_argument("--strict", action="store_true", help="refuse scans unlike those the model was trained on")


def run(arguments: argparse.Namespace) -> int:
    """Segment the scans; 4 if some failed, as a segmentation or as a DICOM-SEG that was asked for."""
    keep_freed_memory()
    if arguments.dicom_seg:
        require_highdicom()
    package = load_package(arguments.model)
    scans = list_scans(arguments.input, package.channels) if arguments.dicom_seg else []  # before any are written there
    results = predict(
        package,
        arguments.input,
        arguments.output,
        arguments.device,
        arguments.strict,
        backend=arguments.backend,
        uncertainty=arguments.uncertainty,
        probabilities=arguments.probabilities,
    )
    if arguments.dicom_seg:
        results = write_dicom_segs(scans, arguments.output, results, package)
    print(results_table(results))
    failed = sum(result.status == "failed" for result in results) + without_dicom_seg(results)
    return EXIT_SOME_CASES if failed else EXIT_DONE
