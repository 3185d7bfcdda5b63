"""What each command does: arguments in, exit code out. Every import that costs time stands where it is needed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import EXIT_DATA, EXIT_DONE, EXIT_SOME_CASES, ConfigError

if TYPE_CHECKING:
    from pipeline.config.pipeline_config import PipelineConfig


def run_stages(arguments: argparse.Namespace) -> int:
    """`run` and every stage alone."""
    config = _load_config(arguments.config, arguments.overrides)
    return _run_config(config, arguments.out, arguments.first, arguments.only, arguments.force)


def _run_config(
    config: PipelineConfig,
    out: Path | None,
    first: str | None = None,
    only: str | None = None,
    force: bool = False,
) -> int:
    from pipeline.base.heap import keep_freed_memory
    from pipeline.runner import run

    keep_freed_memory()
    folder = out if out is not None else Path("runs") / config.name
    code = run(config, folder, first, only, force)
    _print_summary(folder, only)
    return code


def _print_summary(folder: Path, only: str | None) -> None:
    """After a whole run: the table of Dice, where the report lies and what to do with the package."""
    from pipeline.base.files import read_json
    from pipeline.base.terminal import format_table

    summary = folder / "evaluate" / "summary.json"
    if only in {None, "evaluate"} and summary.is_file():
        content = read_json(summary)
        rows = [(name, *_dice_cells(entry["dice"])) for name, entry in content["structures"].items()]
        mean = ("mean", *_dice_cells(content["mean"]["dice"])[:2], "")
        print("\n" + format_table(("structure", "Dice", "95 % interval", "cases"), [*rows, mean]))
    if only is None:
        print(f"\nreport   {folder / 'report' / 'report.html'}")
        print(f"predict  segpipe predict --model {folder / 'package'} --input SCANS --output SEGMENTATIONS")


def _dice_cells(dice: dict) -> tuple[str, str, str]:
    mean, interval = dice.get("mean"), dice.get("ci95")
    between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval and None not in interval else ""
    return ("undefined" if mean is None else f"{mean:.3f}"), between, str(dice.get("n", ""))


def _load_config(path: Path, overrides: Sequence[str]) -> PipelineConfig:
    from pipeline.config.pipeline_config import load_config

    return load_config(path, overrides)


def show_config(arguments: argparse.Namespace) -> int:
    """The resolved configuration, or the JSON Schema."""
    import json

    from pipeline.config.pipeline_config import json_schema, load_config, to_yaml

    if arguments.schema:
        print(json.dumps(json_schema(), indent=2))
    elif arguments.config is None:
        raise ConfigError("show-config needs a CONFIG, or --schema")
    else:
        print(to_yaml(load_config(arguments.config, arguments.overrides)), end="")
    return EXIT_DONE


def run_demo(arguments: argparse.Namespace) -> int:
    """The whole pipeline on phantoms."""
    from pipeline.config.pipeline_config import load_config
    from pipeline.dataset.phantoms import make_phantoms

    phantoms = arguments.out / "phantoms"
    manifest = phantoms / "manifest.json"
    if not manifest.is_file():
        make_phantoms(phantoms)
        print(f"made phantoms in {phantoms}")
    overrides = [f"data.manifest={manifest}", f"data.root={phantoms}", *arguments.overrides]
    return _run_config(load_config(Path(__file__).with_name("demo.yaml"), overrides), arguments.out)


def init_data(arguments: argparse.Namespace) -> int:
    """From a folder to a manifest and a configuration."""
    from pipeline.layouts.folders.file_roles import FilePatterns
    from pipeline.layouts.init.init_dataset import init_dataset

    chosen = FilePatterns(arguments.label_files, arguments.image_files)
    result = init_dataset(arguments.folder, arguments.output, arguments.format, arguments.labels, chosen)
    print(result.message)
    return EXIT_DONE


def convert_data(arguments: argparse.Namespace) -> int:
    """A data set as nnU-Net raw or MSD; 4 where some cases had to be left out."""
    from pipeline.layouts.convert.convert_dataset import convert_dataset

    result = convert_dataset(arguments.source, arguments.to, arguments.output)
    print(result.message)
    return EXIT_SOME_CASES if result.problems else EXIT_DONE


def predict_scans(arguments: argparse.Namespace) -> int:
    """Scans in, segmentations out; 4 where some failed, as a segmentation or as a DICOM-SEG that was asked for."""
    from pipeline.base.heap import keep_freed_memory
    from pipeline.deploy.dicom_seg import require_highdicom, without_dicom_seg, write_dicom_segs
    from pipeline.deploy.list_scans import list_scans
    from pipeline.deploy.predict import predict, summary
    from pipeline.packaging.model_package import load_package

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
    print(summary(results))
    failed = sum(result.status == "failed" for result in results) + without_dicom_seg(results)
    return EXIT_SOME_CASES if failed else EXIT_DONE


def score_folder(arguments: argparse.Namespace) -> int:
    """Predictions against references; 4 where some references have no prediction, or none that can be compared."""
    from pipeline.evaluation.metrics.score_case import MetricConfig
    from pipeline.evaluation.score_folders import parse_tolerances, score

    metrics = MetricConfig(
        **parse_tolerances(arguments.nsd_tolerance_mm),
        surface=arguments.surface,
        empty_policy=arguments.empty_policy,
    )
    summary = score(
        arguments.pred, arguments.ref, arguments.labels, arguments.output, metrics, ignore_value=arguments.ignore
    )
    return EXIT_SOME_CASES if summary["not_scored"] else EXIT_DONE


def build_image(arguments: argparse.Namespace) -> int:
    """A container image with a model inside."""
    from pipeline.deploy.container_image import build_image

    build_image(arguments.package, arguments.tag, base=arguments.base, engine=arguments.engine)
    return EXIT_DONE


def serve_model(arguments: argparse.Namespace) -> int:
    """A model over HTTP."""
    from pipeline.base.machine import check_device
    from pipeline.deploy.server.serve import serve

    check_device(arguments.device)
    return serve(arguments.model, host=arguments.host, port=arguments.port, device=arguments.device)


def view_run(arguments: argparse.Namespace) -> int:
    """A run's cases in the browser."""
    from pipeline.viewer.viewer_server import view

    view(arguments.run, port=arguments.port, open_browser=not arguments.no_browser)
    return EXIT_DONE


def check_data(arguments: argparse.Namespace) -> int:
    """Every fault of a configuration and its data; 3 where one is fatal."""
    import json

    from pipeline.base.files import write_text
    from pipeline.base.machine import Runtime
    from pipeline.dataset.checks.fault_report import as_json, as_page
    from pipeline.dataset.manifest import read_manifest
    from pipeline.stages.load import check, data_root, show_faults

    config = _load_config(arguments.source, arguments.overrides)
    runtime = Runtime(config.device, config.executor.name, config.executor.workers)
    manifest = read_manifest(config.data.manifest)
    # A manifest by itself may be one of scans to segment; a configuration is there to train.
    to_train = arguments.source.suffix != ".json"
    faults = check(manifest, data_root(config.data), runtime, config.load, to_train)
    if arguments.json:
        print(json.dumps(as_json(faults), indent=2))
    else:
        show_faults(faults, len(manifest.cases))
    if arguments.html:
        write_text(arguments.html, as_page(faults, len(manifest.cases), manifest.name))
    return EXIT_DATA if any(fault.severity == "fatal" for fault in faults) else EXIT_DONE


def compare_runs(arguments: argparse.Namespace) -> int:
    """Runs side by side."""
    from pipeline.evaluation.compare import compare

    compare(arguments.sources, arguments.output)
    return EXIT_DONE
