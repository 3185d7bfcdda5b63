"""Command `score`: a folder of predictions against references."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from pipeline.base.errors import EXIT_DONE, EXIT_SOME_CASES, ConfigError
from pipeline.evaluation.metrics.empty_policy import EmptyPolicy
from pipeline.evaluation.metrics.score_case import MetricConfig
from pipeline.evaluation.score_folders import score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--pred", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ref", type=Path, required=True, metavar="DIR")
    parser.add_argument("--labels", required=True, metavar="NAME=VALUE,...")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--nsd-tolerance-mm", default="1", metavar="MM|NAME=MM,...", help="of the surface Dice")
    parser.add_argument("--surface", default="surfel", choices=("surfel", "voxel"), help="how surfaces are measured")
    parser.add_argument(
        "--empty-policy", default="segpipe", choices=get_args(EmptyPolicy), help="whose rule for absent structures"
    )
    parser.add_argument("--ignore", type=int, metavar="VALUE", help="label value of the references that does not count")


def run(arguments: argparse.Namespace) -> int:
    """Score the predictions; 4 if some references have no prediction, or none that can be compared."""
    metrics = MetricConfig(
        **parse_tolerances(arguments.nsd_tolerance_mm),
        surface=arguments.surface,
        empty_policy=arguments.empty_policy,
    )
    summary = score(
        arguments.pred, arguments.ref, arguments.labels, arguments.output, metrics, ignore_value=arguments.ignore
    )
    return EXIT_SOME_CASES if summary["not_scored"] else EXIT_DONE


def parse_tolerances(text: str) -> dict[str, Any]:
    """`2`, or `liver=2,tumour=1` (1 mm for those not named), as the fields of `MetricConfig`; else a ConfigError."""
    try:
        if "=" not in text:
            found = {"": float(text)}
        else:
            found = {name.strip(): float(mm) for name, _, mm in (part.partition("=") for part in text.split(","))}
    except ValueError:
        found = {}
    if not found or not all(mm > 0 for mm in found.values()):
        raise ConfigError(f"--nsd-tolerance-mm: {text!r} is no length above 0; write 2, or liver=2,tumour=1")
    return {"default_tolerance_mm": found.pop("", 1.0), "tolerance_mm": found}
