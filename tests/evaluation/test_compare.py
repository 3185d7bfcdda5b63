"""`segpipe compare`: paired statistics on tables whose answers are known, from every kind of source."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.evaluation.compare import compare_runs
from pipeline.evaluation.metrics.paired_tests import paired_differences
from pipeline.evaluation.read_scores import read_scores
from pipeline.reporting.charts.comparison_chart import draw_comparison

CASES = [f"case_{i:02d}" for i in range(12)]


def write_run(folder: Path, dice: dict[str, list[float | None]], **definitions: object) -> Path:
    """A run whose `evaluate` holds this Dice per structure and case; IoU and HD95 follow from it."""
    evaluate = folder / "evaluate"
    evaluate.mkdir(parents=True)
    with (evaluate / "per_case.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "structure", "dice", "iou", "hd95_mm", "empty", "subject"])
        for index, case in enumerate(CASES):
            for structure, values in dice.items():
                if (value := values[index]) is None:
                    writer.writerow([case, structure, "", "", "", "both_empty", case])
                else:
                    writer.writerow([case, structure, value, value / (2 - value), 10 * (1 - value), "", case])
    summary = {
        "structures": {},
        "label_values": {name: [value] for value, name in enumerate(dice, start=1)},
        "definitions": {"surface": "surfel", **definitions},
    }
    (evaluate / "summary.json").write_text(json.dumps(summary))
    return folder


def write_nnunet(folder: Path, dice: dict[str, list[float]]) -> Path:
    """nnU-Net's summary.json, as `nnUNetv2_evaluate_folder` writes it: NaN and label values as keys."""
    folder.mkdir(parents=True)
    per_case = [
        {
            "metrics": {
                label: {
                    "Dice": values[i], "IoU": values[i] / (2 - values[i]), "TP": 9, "FP": 1, "FN": 3, "TN": 99,
                    "n_pred": 10, "n_ref": 12,
                }
                for label, values in dice.items()
            },
            "prediction_file": f"/data/pred/{case}.nii.gz",
            "reference_file": f"/data/ref/{case}.nii.gz",
        }
        for i, case in enumerate(CASES)
    ]  # fmt: skip
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": per_case, "mean": {}, "foreground_mean": {}}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """B is 0.02 better in `head` in all cases but the last, where it fails; `tail` is equal."""
    a = np.linspace(0.7, 0.9, len(CASES))
    b = a + 0.02
    b[-1] = 0.1
    tail = [*np.linspace(0.5, 0.6, 11).tolist(), None]
    first = write_run(tmp_path / "A", {"head": a.tolist(), "tail": tail})
    second = write_run(tmp_path / "B", {"head": b.tolist(), "tail": tail})
    return first, second


def test_known_differences(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = compare_runs(runs, tmp_path / "out")
    (comparison,) = result["comparisons"]
    head = comparison["structures"]["head"]["dice"]
    assert (head["wins"], head["losses"], head["ties"]) == (11, 1, 0)
    assert head["difference"]["mean"] == pytest.approx((11 * 0.02 - 0.8) / 12)
    assert head["difference"]["median"] == pytest.approx(0.02)
    low, high = head["difference"]["ci95"]
    assert low < head["difference"]["mean"] < high
    hd95 = comparison["structures"]["head"]["hd95_mm"]
    assert (hd95["wins"], hd95["losses"]) == (11, 1), "a smaller distance wins"
    tail = comparison["structures"]["tail"]["dice"]
    assert (tail["n"], tail["ties"], tail["p"], tail["p_holm"]) == (11, 11, 1.0, 1.0)
    assert head["p_holm"] == pytest.approx(2 * head["p"])
    assert comparison["most_different"][0]["case"] == CASES[-1]
    assert comparison["most_different"][0]["difference"] == pytest.approx(-0.8)


def test_the_mean_over_structures_is_paired_where_all_are_defined(runs: tuple[Path, Path], tmp_path: Path) -> None:
    mean = compare_runs(runs, tmp_path / "out")["comparisons"][0]["structures"]["mean"]["dice"]
    assert mean["n"] == 11
    assert mean["difference"]["mean"] == pytest.approx(0.01)


def test_files(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = compare_runs(runs, tmp_path / "out", draw=draw_comparison)
    assert json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8")) == result
    with (tmp_path / "out" / "compare.csv").open(encoding="utf-8") as stream:
        rows = {(row["structure"], row["metric"]): row for row in csv.DictReader(stream)}
    assert rows["head", "dice"]["wins"] == "11"
    with (tmp_path / "out" / "cases.csv").open(encoding="utf-8") as stream:
        values = list(csv.DictReader(stream))
    last = next(row for row in values if row["case"] == CASES[-1] and row["metric"] == "dice")
    assert (last["A"], last["B"]) == ("0.9", "0.1")
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_nnunet_labels_take_the_names_of_the_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = runs
    values = [0.8] * 11 + [float("nan")]
    other = write_nnunet(tmp_path / "fold_0" / "validation", {"1": [0.8] * 12, "2": values, "(1, 2)": [0.9] * 12})
    for source in (other, other / "summary.json"):
        result = compare_runs([run, source], tmp_path / "out")
        tables = result["comparisons"][0]["structures"]
        assert set(tables) == {"head", "tail", "mean"}
        assert tables["head"]["dice"]["mean"] == pytest.approx(0.8)
        assert tables["tail"]["dice"]["n"] == 11
    scores = read_scores([run, other])[1]
    assert scores.structures == ["head", "tail", "label 1+2"]
    assert scores.table[CASES[0], "head"]["precision"] == pytest.approx(0.9)
    assert scores.table[CASES[0], "head"]["recall"] == pytest.approx(0.75)


def test_two_nnunet_results_without_any_names(tmp_path: Path) -> None:
    folders = [write_nnunet(tmp_path / f"fold_{k}" / "validation", {"1": [0.8 + k / 10] * 12}) for k in range(2)]
    result = compare_runs(folders, tmp_path / "out")
    assert result["baseline"] == "fold_0/validation"
    entry = result["comparisons"][0]["structures"]["label 1"]["dice"]
    assert (entry["wins"], entry["difference"]["mean"]) == (12, pytest.approx(0.1))


def test_nnunet_labels_in_any_spelling(tmp_path: Path) -> None:
    """As numpy 2 writes a region, on a Windows machine, with background and more than nine labels."""
    keys = {"0": 0.99, "10": 0.5, "2": 0.6, "(np.int64(2), np.int64(1))": 0.7, "(3,)": 0.8}
    folder = write_nnunet(tmp_path / "validation", {key: [value] * 12 for key, value in keys.items()})
    file = folder / "summary.json"
    file.write_text(file.read_text().replace("/data/ref/", r"C:\\nnUNet_raw\\Dataset004\\labelsTr\\"))
    (scores,) = read_scores([file])
    assert scores.cases == CASES
    assert scores.structures == ["label 2", "label 3", "label 10", "label 1+2"]
    assert scores.table[CASES[0], "label 1+2"]["dice"] == 0.7


def test_a_run_compared_with_itself_ties_under_two_names(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = compare_runs([runs[0], runs[0]], tmp_path / "out")
    assert [source["name"] for source in result["sources"]] == ["A (1)", "A (2)"]
    assert result["comparisons"][0]["structures"]["head"]["dice"]["ties"] == 12
    assert result["comparisons"][0]["most_different"] == []


def test_runs_of_one_name_are_told_apart_by_what_lies_above(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / where / "run", {"head": [0.5] * 12}) for where in ("one", "two")]
    assert [scores.name for scores in read_scores(paths)] == ["one/run", "two/run"]


def test_a_tie_is_one_even_after_rounding() -> None:
    entry = paired_differences("dice", np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.5]), ["a", "b"], 100)
    assert (entry["wins"], entry["losses"], entry["ties"]) == (0, 0, 2)


def test_what_differs_by_rounding_alone_differs_nowhere(tmp_path: Path) -> None:
    sources = [write_run(tmp_path / name, {"head": [dice] * 12}) for name, dice in (("A", 0.3), ("B", 0.1 + 0.2))]
    (comparison,) = compare_runs(sources, tmp_path / "out")["comparisons"]
    assert (comparison["structures"]["head"]["dice"]["ties"], comparison["most_different"]) == (12, [])


def test_structures_that_one_source_has_alone_are_named(
    runs: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_run(tmp_path / "C", {"head": [0.5] * 12, "liver": [0.5] * 12, "spleen": [0.5] * 12})
    (comparison,) = compare_runs([runs[0], other], tmp_path / "out")["comparisons"]
    assert comparison["structures_only_in_baseline"] == ["tail"]
    assert comparison["structures_only_in_this"] == ["liver", "spleen"]
    assert "only A has it: tail" in caplog.text
    assert "only C has it: liver, spleen" in caplog.text


def test_different_definitions_are_said(runs: tuple[Path, Path], tmp_path: Path, caplog: object) -> None:
    other = write_run(tmp_path / "C", {"head": [0.5] * 12}, surface="voxel")
    result = compare_runs([runs[0], other], tmp_path / "out")
    assert result["comparisons"][0]["defined_differently"] == ["surface"]


def test_what_cannot_be_compared_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        compare_runs(runs[:1], tmp_path / "out")
    with pytest.raises(DataError, match=r"no scores here; looked for evaluate/per_case\.csv"):
        compare_runs([runs[0], tmp_path], tmp_path / "out")
    package = tmp_path / "package"
    package.mkdir()
    (package / "summary.json").write_text(json.dumps({"structures": {}}))
    with pytest.raises(DataError, match="holds means only"):
        compare_runs([runs[0], package], tmp_path / "out")
    other = write_run(tmp_path / "other", {"liver": [0.5] * 12})
    with pytest.raises(DataError, match=r"no structure in common \(head, tail … and liver …\)"):
        compare_runs([runs[0], other], tmp_path / "out")
    (package / "summary.json").write_text("[]")
    with pytest.raises(DataError, match="neither segpipe's nor nnU-Net's"):
        compare_runs([runs[0], package], tmp_path / "out")
