"""Figures whose content can be worked out on paper."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.reporting.charts.bland_altman import bland_altman
from pipeline.reporting.charts.box_plots import box_statistics, box_strip
from pipeline.reporting.charts.confusion_chart import confusion_table, shares_of_reference
from pipeline.reporting.charts.svg_axes import Scale, round_outwards
from pipeline.reporting.format_numbers import number


def test_a_scale_is_linear_and_holds_values_inside_the_axis():
    scale = Scale(0.0, 2.0, 100.0, 300.0)
    assert [scale(v) for v in (0.0, 0.5, 2.0, 9.0, -1.0)] == [100.0, 150.0, 300.0, 300.0, 100.0]
    assert scale.ticks(4) == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, (0.0, 1.0)), (0.13, 0.97, (0.0, 1.0)), (-3.2, 18.0, (-5.0, 20.0)), (0.0, 0.0, (-1.0, 1.0))],
)
def test_axes_end_on_round_numbers(low: float, high: float, expected: tuple[float, float]):
    assert round_outwards(low, high) == pytest.approx(expected)


def test_numbers_for_people():
    assert [number(v) for v in (0.8765, 12.345, 4321.0, -0.5, None, float("nan"))] == [
        "0.876", "12.3", "4321", "−0.500", "–", "–"]  # fmt: skip


def test_whiskers_end_at_the_last_case_within_reach_and_what_is_beyond_is_named():
    # Quartiles of 1…9 and 30 are 3.25 and 7.75: the upper whisker may reach 14.5 and ends at 9.
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 30])
    box = box_statistics(values)
    assert (box.q1, box.median, box.q3, box.low, box.high) == (3.25, 5.5, 7.75, 1.0, 9.0)
    names = [f"case{i}" for i in range(10)]
    picture = box_strip("HD95 mm", values[:, None], names, ["organ"], {"organ": {"mean": 7.5, "ci95": [4, 12]}}, False)
    assert re.findall(r"<title>(case\d+: [^<]*)</title>", picture) == ["case9: 30.0"]
    assert "7.500 [4.000, 12.0]" in picture
    assert picture.count("h0") == 9  # the other cases are points of one path


def test_every_case_is_drawn_once_even_where_it_lies_beyond_the_axis():
    rng = np.random.default_rng(0)
    table = np.clip(rng.normal(0.9, 0.02, (50, 2)), 0, 1)
    table[3, 0], table[4, 1] = 0.0, np.nan
    picture = box_strip("Dice", table, [f"c{i}" for i in range(50)], ["a", "b"], {}, True)
    marks = picture.count('class="outlier"')
    assert picture.count("h0") + marks == 99
    assert "<title>c3: 0.000</title>" in picture


def test_a_metric_that_no_case_has_says_so():
    picture = box_strip("NSD", np.full((3, 1), np.nan), ["a", "b", "c"], ["organ"], {}, True)
    assert "no case has a defined value" in picture


def test_bias_and_limits_of_agreement():
    # Differences −1, 0, 1, 2: mean 0.5, sample SD 1.2910, limits 0.5 ± 2.530.
    reference = np.array([10.0, 20, 30, 40])
    picture = bland_altman("organ", reference, reference + np.array([-1, 0, 1, 2]), ["a", "b", "c", "d"])
    assert "bias 0.500 ml, limits of agreement −2.030 to 3.030 ml, 4 cases" in picture


def test_undefined_volumes_are_left_out_and_one_case_has_no_limits():
    reference = np.array([10.0, np.nan])
    assert "fewer than two cases" in bland_altman("organ", reference, np.array([11.0, 3.0]), ["a", "b"])


def test_cases_without_the_structure_do_not_narrow_the_limits():
    reference, shift = np.array([10.0, 20, 30, 40, 0, 0]), np.array([-1, 0, 1, 2, 0, 0])
    picture = bland_altman("organ", reference, reference + shift, list("abcdef"))
    assert "bias 0.500 ml, limits of agreement −2.030 to 3.030 ml, 4 cases" in picture


def test_confusion_is_shown_as_shares_of_the_reference():
    voxels = [[1000, 5, 0], [10, 80, 10], [0, 0, 0]]
    shares = shares_of_reference(np.array(voxels, float))
    assert shares[1].tolist() == [0.1, 0.8, 0.1]
    assert np.isnan(shares[2]).all()
    table = confusion_table(["background", "organ", "cyst"], voxels)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", table) == [
        "", "5 voxels", "0 voxels", "10.0 %", "80.0 %", "10.0 %", "–", "–", "–"]  # fmt: skip
