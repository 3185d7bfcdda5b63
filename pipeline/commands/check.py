"""Command `check`: every fault of a configuration and its data, without computing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline.base.errors import EXIT_DATA, EXIT_DONE
from pipeline.base.files import write_text
from pipeline.base.machine import Runtime
from pipeline.commands.config_arguments import add_set_argument
from pipeline.config import load_config
from pipeline.dataset.checks.check_dataset import find_faults
from pipeline.dataset.checks.fault_report import as_json, as_page, log_faults
from pipeline.dataset.manifest import read_manifest
from pipeline.stages.input_files import require_data_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", type=Path, metavar="CONFIG|MANIFEST")
    add_set_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the faults as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the faults as a page")


def run(arguments: argparse.Namespace) -> int:
    """Name every fault; 3 if one is fatal."""
    config = load_config(arguments.source, arguments.overrides)
    runtime = Runtime(config.device, config.executor.name, config.executor.workers)
    manifest = read_manifest(config.data.manifest)
    # A manifest by itself may be one of scans to segment; a configuration is there to train.
    to_train = arguments.source.suffix != ".json"
    faults = find_faults(
        manifest,
        require_data_root(config.data),
        runtime,
        grid_tolerance_mm=config.load.grid_tolerance_mm,
        resample_channels=config.load.resample_channels,
        to_train=to_train,
    )
    if arguments.json:
        print(json.dumps(as_json(faults), indent=2))
    else:
        log_faults(faults, len(manifest.cases))
    if arguments.html:
        write_text(arguments.html, as_page(faults, len(manifest.cases), manifest.name))
    return EXIT_DATA if any(fault.severity == "fatal" for fault in faults) else EXIT_DONE
