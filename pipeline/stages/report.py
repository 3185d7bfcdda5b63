"""Report: what should a person look at? Writes `report.html`: one file that works offline."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline import __version__
from pipeline.base.files import safe_join, write_text
from pipeline.base.machine import Runtime
from pipeline.base.stage import CONFIG
from pipeline.dataset.loaded_cases import recorded_data_root
from pipeline.reporting.load_case import load_case
from pipeline.reporting.report_page import report_page
from pipeline.reporting.run_record import read_run
from pipeline.reporting.slices import Slices, cut
from pipeline.stages.stage_configs import ReportStageConfig

log = logging.getLogger(__name__)


def run(config: ReportStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:  # noqa: ARG001, no device is used
    """Writes `report.html` from the finished stages. DataError where a file of theirs is missing or does not fit."""

    record = read_run(config.name, config.seed, inputs, _saved_config(out))
    root, by_id = recorded_data_root(inputs["load"]), {case.id: case for case in record.cases.cases}
    predictions = {entry["id"]: entry["prediction"] for entry in record.inferred}

    def slices(index: int) -> tuple[int, Slices]:
        """A case's slices; its volume is let go before the next one is read."""
        case = record.results.cases[index]
        return index, cut(load_case(by_id[case], root, safe_join(inputs["infer"], predictions[case])))

    worst, median = record.results.worst_and_median(config.report.worst_cases, config.report.median_cases)
    page = report_page(record, [slices(i) for i in worst], [slices(i) for i in median], __version__)
    write_text(out / "report.html", page)
    log.info("report    %d cases, %.1f MB", len(record.results.cases), len(page.encode()) / 1e6)


def _saved_config(folder: Path) -> str:
    """The resolved configuration beside a stage's result; empty where a stage was run without one."""
    path = folder / CONFIG
    return path.read_text(encoding="utf-8") if path.is_file() else ""
