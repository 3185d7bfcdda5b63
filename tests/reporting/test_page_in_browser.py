"""The report in a real browser: the table sorts and filters, themes and print work, nothing is loaded or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.execute_stage import execute
from pipeline.base.machine import Runtime
from pipeline.config.report import ReportConfig
from pipeline.stages.stage_configs import ReportStageConfig
from pipeline.stages.stage_table import REPORT
from tests.chromium import chromium, save
from tests.reporting.fake_run import fake_run

_SHOWN = "[...document.querySelectorAll('#cases tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    shifts = {"case_1": 0, "case_2": 6, "case_10": 3, "case_<b>": 1, "12": 2}
    folders = fake_run(root, ids=tuple(shifts), shift_of=shifts, channels=("T2", "T1"))
    reads = ReportStageConfig(report=ReportConfig(worst_cases=2, median_cases=1), name="spheres", seed=3)
    execute(REPORT, reads, folders, root / "report", Runtime("cpu", "serial"), resolved_config="name: spheres\n")
    return root / "report" / "report.html"


@pytest.mark.slow
def test_a_reader_sorts_filters_changes_the_theme_and_prints(report: Path):
    with chromium() as page:
        page.open(report.as_uri(), 1280, 900)
        assert page.run(_SHOWN) == ["case_2", "case_10", "12", "case_<b>", "case_1"]

        page.run("document.querySelectorAll('#cases thead button')[2].click()")
        assert page.run(_SHOWN) == ["case_1", "case_<b>", "12", "case_10", "case_2"]
        page.run("document.querySelectorAll('#cases thead button')[0].click()")
        shown = page.run(_SHOWN)  # numbers in names count as numbers, and a name that is one as a name
        assert shown[0] == "12" and shown[2:] == ["case_1", "case_2", "case_10"]
        assert page.run("document.querySelector('#cases [aria-sort=ascending]').textContent") == "case"

        page.run("(e => { e.value = '10'; e.dispatchEvent(new Event('input')); })(document.getElementById('filter'))")
        assert page.run(_SHOWN) == ["case_10"]
        assert page.run("document.getElementById('count').textContent") == "1 of 5 cases"
        page.run("(e => { e.value = ''; e.dispatchEvent(new Event('input')); })(document.getElementById('filter'))")
        page.run("(e => { e.value = '0.99'; e.dispatchEvent(new Event('input')); })(document.getElementById('below'))")
        assert "case_1" not in page.run(_SHOWN) and len(page.run(_SHOWN)) == 4

        cyst = "document.querySelector('#cases tr[data-case=\"1\"]').cells[6].textContent"
        assert page.run(cyst) == "–"
        page.run(
            "(e => { e.value = '1'; e.dispatchEvent(new Event('change')); })(document.getElementById('structure'))"
        )
        assert float(page.run(cyst)) > 0
        page.run("document.querySelectorAll('#cases thead button')[2].click()")  # sorted by Dice of the cyst,
        page.run(
            "(e => { e.value = '0'; e.dispatchEvent(new Event('change')); })(document.getElementById('structure'))"
        )
        dice = "Array.from(document.querySelectorAll('#cases tbody tr'), r => Number(r.cells[2].textContent))"
        assert page.run(dice) == sorted(page.run(dice))  # and then by that of the organ

        hidden = "getComputedStyle(document.querySelectorAll('#cases thead th')[6]).display === 'none'"
        assert not page.run(hidden)
        page.run(
            "(e => { e.value = '-1'; e.dispatchEvent(new Event('change')); })(document.getElementById('structure'))"
        )
        assert page.run(hidden), "volumes have no mean over structures"

        seen = "['k0', 'k1'].map(c => getComputedStyle(document.querySelector('#worst image.' + c)).display !== 'none')"
        assert page.run(seen) == [True, False]
        page.run("document.querySelector('#worst input.k1').click()")
        assert page.run(seen) == [False, True]
        assert page.run("getComputedStyle(document.querySelector('#median image.k0')).display !== 'none'")

        background = "getComputedStyle(document.body).backgroundColor"
        page.prefer("light")
        light = page.run(background)
        save(page.screenshot(whole_page=True), "report_light.png")
        page.prefer("dark")
        dark = page.run(background)
        save(page.screenshot(whole_page=True), "report_dark.png")
        assert light != dark
        page.run("document.getElementById('theme').click()")
        assert page.run(background) == light  # the reader's choice wins over the system's

        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        page.resize(390, 800)
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "a phone's page does not scroll sideways"
        folded = page.run("document.querySelectorAll('details:not([open])').length")
        assert page.pdf().startswith(b"%PDF")
        assert page.run("document.querySelectorAll('details:not([open])').length") == folded > 0
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
        assert page.log == []
