"""Faults as a person or a program sees them."""

from __future__ import annotations

import json

from pipeline.dataset.checks.fault_report import as_json, as_page, fault_summary, lines
from pipeline.dataset.checks.faults import Fault

FATAL = Fault("c1", "images/c1.nii.gz", "fatal", "nan", "3 voxels are NaN", "replace them")
WARNING = Fault("c0", "", "warning", "leak", "its <subject> & more", "look")


def test_fatal_faults_come_first_and_every_line_has_case_file_and_cure() -> None:
    shown = [line for _, line in lines([WARNING, FATAL])]
    assert shown[0] == "fatal    c1  images/c1.nii.gz: 3 voxels are NaN; replace them"
    assert shown[1] == "warning  c0: its <subject> & more; look"


def test_a_fault_of_many_files_is_said_once_and_all_are_named() -> None:
    missing = [Fault(f"c{i}", f"images/c{i}.nii.gz", "fatal", "missing-file", "no such file", "look") for i in range(9)]
    shown = [line for _, line in lines(missing)]
    assert shown[0] == "fatal    9 times: no such file; look"
    assert [line.split()[0] for line in shown[1:]] == [f"c{i}" for i in range(9)]


def test_counts() -> None:
    assert fault_summary([WARNING, FATAL], 7) == "checked 7 cases: 1 fatal, 0 fixable, 1 warning"
    assert fault_summary([], 7) == "checked 7 cases: no faults"


def test_json_has_every_field() -> None:
    assert json.loads(json.dumps(as_json([FATAL]))) == [
        {
            "case": "c1",
            "file": "images/c1.nii.gz",
            "severity": "fatal",
            "code": "nan",
            "found": "3 voxels are NaN",
            "cure": "replace them",
        }
    ]


def test_page_stands_alone_and_escapes_what_it_shows() -> None:
    page = as_page([WARNING, FATAL], 7, "A & B")
    assert "<title>A &amp; B</title>" in page
    assert "its &lt;subject&gt; &amp; more" in page
    assert page.index("3 voxels are NaN") < page.index("its &lt;subject&gt;")
    assert "http" not in page
    assert "src=" not in page
