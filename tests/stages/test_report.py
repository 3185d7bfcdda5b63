"""The report stage: one file, complete, closed to the outside, and harmless whatever the data says."""

from __future__ import annotations

import csv
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import DataError
from pipeline.base.execute_stage import execute
from pipeline.base.machine import Runtime
from pipeline.config.report import ReportConfig
from pipeline.reporting import overlays, run_record
from pipeline.reporting.evaluation_results import read_results
from pipeline.reporting.png_image import png
from pipeline.reporting.sections.results_section import scored_on
from pipeline.stages.stage_configs import ReportStageConfig
from pipeline.stages.stage_table import REPORT
from tests.reporting.fake_run import fake_run

HOSTILE_ID = "<img src=x onerror=alert(1)>&\"'"
HOSTILE_STRUCTURE = "</script><script>alert(2)</script>"
CONFIG = "name: spheres\nseed: 3\ndata:\n  manifest: m.json\n  root: /home/jane.doe/scans\n"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def _report(tmp_path: Path, config: ReportConfig | None = None, **run) -> tuple[str, _Page]:
    folders = fake_run(tmp_path, **run)
    reads = ReportStageConfig(report=config or ReportConfig(), name="spheres", seed=3)
    out = tmp_path / "run" / "report"
    execute(REPORT, reads, folders, out, Runtime("cpu", "serial"), resolved_config=CONFIG)
    source = (out / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(source)
    page.close()
    return source, page


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, _Page]:
    """A run whose case ids, structure names and messages are written to break pages."""
    root = tmp_path_factory.mktemp("report")
    return _report(
        root,
        ids=("plain", HOSTILE_ID, "third", "lost"),
        failed={"lost": f"{root}/data/lost.nii.gz: <b>truncated</b>, see /home/jane.doe/lost.nii.gz"},
        faults=[
            {"case": "bad", "file": "b.nii", "severity": "fatal", "code": "<i>nan</i>", "found": "3 NaN", "cure": "fix"}
        ],
        structures={"organ": (1,), HOSTILE_STRUCTURE: (4,)},
        shift_of={"third": 6},
    )  # fmt: skip


def test_every_part_of_the_story_is_there(hostile: tuple[str, _Page]):
    _, page = hostile
    headings = ["Results", "Spread over cases", "Worst cases", "Volumes", "Confusion", "All cases", "Failures (1)",
                "Data", "Plan", "Training", "Provenance"]  # fmt: skip
    assert [heading for heading in headings if heading not in page.words] == []
    for detail in ("the median of the data set", "3 NaN", "truncated", "abc123", "segpipe run config.yaml", "2.13.0"):
        assert detail in page.words
    links = [attributes["href"][1:] for name, attributes in page.elements if name == "a"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert set(links) <= set(ids) and len(ids) == len(set(ids))


def test_names_from_the_data_stay_text(hostile: tuple[str, _Page]):
    _, page = hostile
    kinds = {name for name, _ in page.elements}
    assert HOSTILE_ID in page.words and HOSTILE_STRUCTURE in page.words and "<b>truncated</b>" in page.words
    assert not kinds & {"img", "iframe", "object", "embed"}
    assert [a.get("type") for name, a in page.elements if name == "script"] == ["application/json", None]
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on") or key == "style"]


def test_nothing_is_loaded_from_anywhere(hostile: tuple[str, _Page]):
    source, page = hostile
    policy = next(a["content"] for n, a in page.elements if n == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for name, attributes in page.elements:
        for key in ("src", "href", "data", "action"):
            if key in attributes:
                assert attributes[key].startswith(("#", "data:image/png;base64,")), (name, attributes)
    assert "url(" not in source and "@import" not in source


def test_no_folder_and_no_subject_of_this_machine_is_told(hostile: tuple[str, _Page], tmp_path_factory):
    source, _ = hostile
    assert "jane.doe" not in source and str(tmp_path_factory.getbasetemp()) not in source
    assert "subject of" not in source


def test_the_worst_case_comes_first(hostile: tuple[str, _Page]):
    source, _ = hostile
    worst = source[source.index('id="worst"') : source.index('id="agreement"')]
    assert re.findall(r"<h3>(third|plain)<", worst) == ["third", "plain"]
    first_row = source[source.index('id="cases"') :]
    assert re.search(r"<tbody><tr[^>]*><th[^>]*>(.*?)</th>", first_row).group(1) == "third"


def test_a_second_report_is_equal_byte_for_byte(tmp_path: Path):
    folders = fake_run(tmp_path, ids=("a", "b"))
    reads = ReportStageConfig(report=ReportConfig(), name="spheres", seed=3)
    pages = []
    for name in ("one", "two"):
        execute(REPORT, reads, folders, tmp_path / name, Runtime("cpu"), resolved_config=CONFIG)
        pages.append((tmp_path / name / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_how_many_cases_are_pictured_is_configured(tmp_path: Path):
    source, _ = _report(tmp_path, ReportConfig(worst_cases=1, median_cases=2), ids=("a", "b", "c", "d", "e"))
    assert source.count("<article>") == 3
    assert source.count("data:image/png") == 9


def test_the_channel_that_shows_the_structures_comes_first(tmp_path: Path):
    source, _ = _report(tmp_path, ids=("a", "b", "c"), channels=("flair", "dwi", "T1"))
    chosen = re.search(r'id="worst".*?channel: (<label.*?)</p>', source, re.DOTALL).group(1)
    buttons = re.findall(r'(<input type="radio"[^>]*>)(\w+)<', chosen)
    assert [("checked" in button, button[-5:-3]) for button, _ in buttons] == [
        (True, "k0"),
        (False, "k1"),
        (False, "k2"),
    ]
    assert buttons[0][1] == "T1" and {name for _, name in buttons} == {"flair", "dwi", "T1"}
    assert source.count("data:image/png") == 3 * 3 * 3  # cases, planes, channels
    single, _ = _report(tmp_path / "single", ids=("a",))
    assert 'type="radio"' not in single


TRIED = {"fill_holes": 0.9, "largest_component": 0.93, "min_volume_ml": {"0.5": 0.91}}
CHOSEN = {"dice": 0.9, "tried": TRIED, "dice_after": 0.93, "gain": 0.03, "better": 3, "worse": 1}


@pytest.mark.parametrize(
    ("postprocess", "said"),
    [
        (
            {"asked": "auto", "applied": {"largest_component": ["organ"]}, "cases": 5, "structures": {"organ": CHOSEN}},
            ["Chosen on 5 validation cases (auto)", "largest component kept", "0.9000", "0.9300", "+0.0300",
             "their figures include that choice"],
        ),
        (
            {"asked": "auto", "applied": "none", "cases": 5, "structures": {"organ": {"dice": 0.9, "tried": TRIED}}},
            ["Looked for on 5 validation cases (auto): no step helps", "nothing", "largest component: 0.9300"],
        ),
        (
            {"asked": "steps", "applied": {"min_volume_ml": {"cyst": 0.5}}},
            ["As configured, the same for all cases", "components under 0.5 ml removed"],
        ),
        (
            {"asked": "auto", "applied": "none", "cases": 1, "fewest_cases": 3, "structures": {}},
            ["but 1 validation case is too few to choose it on (3 are needed), so nothing is done"],
        ),
        (
            {"asked": "auto", "applied": "none", "cases": 2, "fewest_cases": 3, "structures": {}},
            ["but 2 validation cases are too few"],
        ),
        ({"asked": "none", "applied": "none"}, ["None was asked for"]),
        (None, []),
    ],
)  # fmt: skip
def test_postprocessing_and_its_gain_are_told(tmp_path: Path, postprocess: dict | None, said: list[str]):
    _, page = _report(tmp_path, ids=("a", "b"), postprocess=postprocess)
    assert [words for words in said if words not in page.words] == []
    assert ("Postprocessing" in page.words) == (postprocess is not None)
    if len(said) < 6:
        assert "include that choice" not in page.words


def test_whose_figures_these_are_is_told(tmp_path: Path):
    _, page = _report(tmp_path, ids=("a", "b"))
    assert "Scored: 2 validation cases, each segmented by a network that was not trained on it" in page.words
    results = read_results(tmp_path / "run" / "evaluate")
    both = scored_on(results, {"a": "fold 0", "b": "testing"})
    assert "1 validation case, " in both and "1 testing case, segmented by all" in both and "over both" in both


def test_structures_that_share_values_are_confused_by_parts(tmp_path: Path):
    _, page = _report(tmp_path, ids=("a", "b"), structures={"whole": (1, 4), "cyst": (4,)})
    assert "whole only" in page.words and "whole + cyst" in page.words
    assert "the rows are their parts" in page.words


def test_one_case_alone_still_makes_a_report(tmp_path: Path):
    source, page = _report(tmp_path, ids=("only",))
    assert "fewer than two cases" in page.words and source.count("<article>") == 1


def test_missing_figures_are_named(tmp_path: Path):
    folders = fake_run(tmp_path, ids=("a",))
    (folders["evaluate"] / "per_case.csv").unlink()
    with pytest.raises(DataError, match=r"per_case\.csv: there is no such file; `segpipe evaluate"):
        execute(
            REPORT, ReportStageConfig(report=ReportConfig(), name="x", seed=0), folders, tmp_path / "r", Runtime("cpu")
        )


def test_patches_that_training_drew_are_shown(tmp_path: Path):
    folders = fake_run(tmp_path, ids=("a",))
    (folders["sample"] / "preview.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    reads = ReportStageConfig(report=ReportConfig(), name="x", seed=0)
    execute(REPORT, reads, folders, tmp_path / "r", Runtime("cpu"), resolved_config=CONFIG)
    source = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"Patches drawn for training</h3><figure><img src=\"data:image/png;base64,", source)


@pytest.mark.slow
def test_two_hundred_cases_with_forty_structures_stay_under_ten_megabytes(tmp_path: Path):
    structures = {f"structure {i}": (i,) for i in range(1, 41)}
    ids = [f"case_{i:03d}" for i in range(200)]
    folders = fake_run(tmp_path, ids=ids, structures=structures, channels=("T1", "T2", "FLAIR"))
    _fill_with_random_figures(folders["evaluate"] / "per_case.csv")
    reads = ReportStageConfig(report=ReportConfig(worst_cases=12, median_cases=12), name="x", seed=0)
    execute(REPORT, reads, folders, tmp_path / "r", Runtime("cpu"), resolved_config=CONFIG)
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert page.count("h0") > 4 * 7000
    # The phantoms' pictures are small: in their place, the most that pictures, contours and a preview may take.
    without = len(page.encode()) - sum(map(len, re.findall(r"data:image/png;base64,[^\"]*", page)))
    most = 4 / 3 * (overlays.BUDGET_PIXELS + run_record.LARGEST_PREVIEW) + overlays.ALL_CONTOUR_BYTES
    assert without + most < 10e6


def _fill_with_random_figures(path: Path) -> None:
    """Gives every case and structure a figure, where the fake run has but two structures."""
    draw = random.Random(0)
    with path.open(encoding="utf-8", newline="") as stream:
        columns, *rows = list(csv.reader(stream))
    end = columns.index("empty")
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([columns, *(r[:2] + [draw.random() for _ in r[2:end]] + r[end:] for r in rows)])
