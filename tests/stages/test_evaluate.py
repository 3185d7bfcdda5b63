"""The evaluate stage and `segpipe score` write the same two files, exactly as other programs read them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.machine import Runtime
from pipeline.cli import main
from pipeline.config.evaluate import EvaluateConfig
from pipeline.dataset.loaded_cases import Case, Cases, Channel, read_cases
from pipeline.evaluation.evaluate_pairs import Evaluation, Pair, evaluate_pairs
from pipeline.evaluation.metrics.looks_like_image import value_count_if_image
from pipeline.evaluation.score_folders import parse_labels, score
from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.io.write_label import write_label
from pipeline.stages.early_checks import check_evaluate_settings
from pipeline.stages.stage_configs import EvaluateStageConfig
from pipeline.stages.stage_table import EVALUATE

SPACING_MM = (2.0, 1.0, 1.0)
STRUCTURES = {"head": (1,), "tail": (2,)}


def grid(shift_mm: float = 0.0) -> Grid:
    affine = np.diag([*SPACING_MM, 1.0])
    affine[0, 3] = shift_mm
    return Grid((20, 20, 20), affine)


def cubes(head_from: int, tail: bool = True) -> np.ndarray:
    """A head of 10³ voxels that begins at `head_from` on axis 0, and a tail of 2³."""
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[head_from : head_from + 10, 3:13, 3:13] = 1
    if tail:
        labels[15:17, 15:17, 15:17] = 2
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pairs: one voxel off; equal; the tail missed."""
    pred, ref = tmp_path / "pred", tmp_path / "ref"
    for name, head_from, tail in (("a", 4, True), ("b", 3, True), ("c", 3, False)):
        write_label(ref / f"{name}.nii.gz", Volume(cubes(3), grid()))
        write_label(pred / f"{name}.nii.gz", Volume(cubes(head_from, tail), grid()))
    return pred, ref


def test_per_case_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    score(*folders, "head=1,tail=2", tmp_path / "out")
    with (tmp_path / "out" / "per_case.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:9] == [
        "case", "structure", "dice", "iou", "hd95_mm", "assd_mm", "nsd", "volume_ref_ml", "volume_pred_ml",
    ]  # fmt: skip
    assert [(row["case"], row["structure"]) for row in rows] == [(c, s) for c in "abc" for s in ("head", "tail")]
    moved = rows[0]  # the values of the golden cases C-cubes-*-google
    assert float(moved["dice"]) == pytest.approx(0.9)
    assert float(moved["iou"]) == pytest.approx(900 / 1100)
    assert float(moved["hd95_mm"]) == 2.0
    assert float(moved["assd_mm"]) == pytest.approx(0.397601, rel=1e-5)
    assert float(moved["nsd"]) == pytest.approx(0.818141, rel=1e-5)
    assert float(moved["volume_ref_ml"]) == float(moved["volume_pred_ml"]) == pytest.approx(2.0)
    missed = rows[5]
    assert (missed["dice"], missed["nsd"], missed["recall"], missed["precision"]) == ("0", "0", "0", "")
    assert float(missed["hd95_mm"]) == pytest.approx(np.sqrt(40**2 + 20**2 + 20**2))
    assert missed["empty"] == "pred_empty"


def test_summary_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    score(*folders, "head=1,tail=2", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    head, tail = summary["structures"]["head"], summary["structures"]["tail"]
    assert list(summary["structures"]) == ["head", "tail"]
    assert head["dice"]["mean"] == pytest.approx((0.9 + 1 + 1) / 3)
    assert head["dice"]["std"] == pytest.approx(np.std([0.9, 1, 1], ddof=1))
    assert head["dice"]["n"] == 3
    low, high = head["dice"]["ci95"]
    assert low <= head["dice"]["mean"] <= high
    assert tail["dice"]["mean"] == pytest.approx(2 / 3)
    assert summary["mean"]["dice"]["mean"] == pytest.approx((head["dice"]["mean"] + tail["dice"]["mean"]) / 2)
    assert tail["counts"] == {
        "n_cases": 3, "n_scored": 3, "n_ref_empty": 0, "n_pred_empty": 1, "n_both_empty": 0, "n_false_positive": 0,
        "n_false_negative": 1, "detection_sensitivity": pytest.approx(2 / 3), "detection_specificity": None,
    }  # fmt: skip
    assert {"iou", "hd95_mm", "assd_mm", "nsd", "volume_difference_ml"} <= set(head)
    assert summary["definitions"]["nsd_tolerance_mm"] == {"head": 1.0, "tail": 1.0}
    assert summary["confusion"]["labels"] == ["background", "head", "tail"]
    assert np.array(summary["confusion"]["voxels"]).sum() == 3 * 20**3


def test_a_structure_absent_on_both_sides_leaves_no_trace_in_the_mean(tmp_path: Path) -> None:
    for folder in ("pred", "ref"):
        write_label(tmp_path / folder / "a.nii.gz", Volume(cubes(3, tail=False), grid()))
    summary = score(tmp_path / "pred", tmp_path / "ref", "head=1,tail=2", tmp_path / "out")
    assert summary["structures"]["tail"]["dice"]["mean"] is None
    assert summary["structures"]["tail"]["counts"]["n_scored"] == 0
    assert summary["structures"]["tail"]["counts"]["detection_specificity"] == 1.0
    assert summary["mean"]["dice"] == {"mean": 1.0, "std": None, "ci95": [None, None], "n": 1}


def test_regions_and_absent_label_values(folders: tuple[Path, Path], tmp_path: Path) -> None:
    summary = score(*folders, "whole=1+2,tail=2,nowhere=900", tmp_path / "out")
    assert summary["structures"]["whole"]["volume_ref_ml"]["mean"] == pytest.approx(1008 * 2 / 1000)
    assert summary["structures"]["nowhere"]["counts"]["n_both_empty"] == 3
    assert summary["confusion"]["labels"] == ["background", "whole only", "whole + tail", "nowhere"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("head", "must be name=value"),
        ("head=one", "must be name=value"),
        ("head=1,head=2", "stands twice"),
        ("background=0", "0 is the background"),
        ("head=1,skull=1", "'head' and 'skull' are both 1"),
        ("all=1+2,whole=2+1", r"'all' and 'whole' are both 2\+1"),
        ("head=1+1", "names a value twice"),
    ],
)
def test_labels_that_cannot_be_used(labels: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_labels(labels)


@pytest.mark.parametrize("background", [0, -1024])
def test_images_are_no_label_maps(folders: tuple[Path, Path], tmp_path: Path, background: int) -> None:
    """Images of whole numbers: a CT, whose air is -1024, in the folder of references."""
    pred, ref = folders
    image = np.random.default_rng(0).integers(0, 400, (20, 20, 20)).astype(np.int16)
    image[:, :12] = background
    nib.save(nib.Nifti1Image(image, grid().affine), ref / "b.nii.gz")
    (entry,) = score(pred, ref, "head=1", tmp_path / "out")["not_scored"]
    assert re.search(r"b\.nii\.gz looks like an image and not like a label map: it has \d+ diff", entry["reason"])
    nib.save(nib.Nifti1Image(image + 0.25, grid().affine), ref / "b.nii.gz")
    (entry,) = score(pred, ref, "head=1", tmp_path / "out")["not_scored"]
    assert re.search(r"b\.nii\.gz: .* not whole numbers", entry["reason"])


def test_label_maps_are_no_images() -> None:
    """A parcellation into 1000 cubes, as many landmarks of one voxel, and a label map of float32."""
    parcels = np.arange(1, 1001, dtype=np.int32).reshape(10, 10, 10).repeat(3, 0).repeat(3, 1).repeat(3, 2)
    assert value_count_if_image(parcels) is None
    landmarks = np.zeros((30, 30, 30), np.int16)
    landmarks[::3, ::3, ::3] = np.arange(1, 1001).reshape(10, 10, 10)
    assert value_count_if_image(landmarks) is None
    assert value_count_if_image(np.random.default_rng(0).permuted(parcels)) == 1000


def test_a_structure_that_is_nowhere_is_said(
    folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    score(*folders, "head=1,nowhere=8+9", tmp_path / "out")
    assert "nowhere: no label map, reference or prediction, has a voxel of value 8 or 9" in caplog.text
    assert "head:" not in caplog.text


def test_speckles_of_declared_values_are_scored_however_they_look(tmp_path: Path) -> None:
    """A network that has learnt little: noise of 60 structures is like an image, but has no value that it may not."""
    parcels = (np.arange(8000).reshape(20, 20, 20) // 131).astype(np.uint8)
    noise = np.random.default_rng(0).permuted(parcels)
    assert value_count_if_image(noise) is not None
    write_label(tmp_path / "ref" / "a.nii.gz", Volume(parcels, grid()))
    write_label(tmp_path / "pred" / "a.nii.gz", Volume(noise, grid()))
    labels = ",".join(f"s{value}={value}" for value in range(1, 62))
    assert score(tmp_path / "pred", tmp_path / "ref", labels, tmp_path / "out")["n_cases"] == 1


def test_pairs_that_cannot_be_compared_are_named_and_the_others_are_scored(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    pred, ref = folders
    (pred / "a.nii.gz").write_bytes(b"cut off")
    write_label(pred / "b.nii.gz", Volume(cubes(3), grid(shift_mm=1.5)))
    command = ["score", "--pred", str(pred), "--ref", str(ref), "--labels", "head=1"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 4
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["n_cases"] == 1
    unread, shifted = summary["not_scored"]
    assert unread["case"] == "a" and str(pred / "a.nii.gz") in unread["reason"]
    assert all(str(folder / "b.nii.gz") in shifted["reason"] for folder in (pred, ref))
    assert "1.5 mm apart" in shifted["reason"]


def test_where_no_pair_can_be_compared_all_are_named_and_nothing_is_written(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    pred, ref = folders
    (pred / "a.nii.gz").unlink()
    write_label(pred / "b.nii.gz", Volume(cubes(3), grid(shift_mm=1.5)))
    write_label(pred / "c.nii.gz", Volume(cubes(3)[1:], Grid((19, 20, 20), grid().affine)))
    with pytest.raises(DataError) as caught:
        score(pred, ref, "head=1", tmp_path / "out")
    message = str(caught.value)
    assert "2 problems" in message
    assert "1.5 mm apart" in message
    assert "(19, 20, 20) and (20, 20, 20) voxels" in message
    assert not (tmp_path / "out").exists()


def test_what_load_takes_for_one_grid_is_scored(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Predictions carry the image's affine, and a label may lie 0.1 mm off it (load.grid_tolerance_mm)."""
    pred, ref = folders
    write_label(pred / "b.nii.gz", Volume(cubes(3), grid(shift_mm=0.05)))
    assert score(pred, ref, "head=1", tmp_path / "out")["structures"]["head"]["counts"]["n_scored"] == 3


def test_ids_that_end_in_four_digits_are_cases(tmp_path: Path) -> None:
    for number in range(3):
        for folder in ("pred", "ref"):
            write_label(tmp_path / folder / f"amos_{number:04d}.nii.gz", Volume(cubes(3 + number), grid()))
    summary = score(tmp_path / "pred", tmp_path / "ref", "head=1", tmp_path / "out")
    assert summary["structures"]["head"]["counts"]["n_cases"] == 3


def test_the_command_takes_what_the_stage_takes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, ref = folders
    command = ["score", "--pred", str(pred), "--ref", str(ref), "--labels", "head=1,tail=2", "--output", str(tmp_path)]
    assert main([*command, "--nsd-tolerance-mm", "head=2", "--surface", "voxel", "--empty-policy", "monai"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["structures"]["head"]["nsd"]["min"] == 1.0  # one voxel of 2 mm off
    assert summary["definitions"]["nsd_tolerance_mm"] == {"head": 2.0, "tail": 1.0}
    assert main([*command, "--nsd-tolerance-mm", "wide"]) == 2
    assert main([*command, "--ignore", "2"]) == 2  # the tail's value
    command[command.index("head=1,tail=2")] = "head=1"
    assert main([*command, "--ignore", "2"]) == 0


def test_predictions_need_references_but_not_the_reverse(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, ref = folders
    (pred / "a.nii.gz").unlink()
    summary = score(pred, ref, "head=1", tmp_path / "out")
    assert summary["n_cases"] == 2
    assert summary["not_scored"] == [{"case": "a", "reason": "no prediction"}]
    (ref / "b.nii.gz").unlink()
    with pytest.raises(DataError, match=r"b\.nii\.gz has no reference"):
        score(pred, ref, "head=1", tmp_path / "out")


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "ASR", "PIL"])
def test_scores_do_not_depend_on_how_the_file_lies(tmp_path: Path, axcodes: str) -> None:
    """The same anatomy with its axes stored in another order and direction, spacing included."""
    upright = nib.Nifti1Image(cubes(4), grid().affine), nib.Nifti1Image(cubes(3), grid().affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(grid().affine), nib.orientations.axcodes2ornt(axcodes))
    for side, image in zip(("pred", "ref"), upright, strict=True):
        (tmp_path / side).mkdir()
        nib.save(image.as_reoriented(turn), tmp_path / side / "a.nii.gz")
    summary = score(tmp_path / "pred", tmp_path / "ref", "head=1,tail=2", tmp_path / "out")
    head = summary["structures"]["head"]
    assert head["hd95_mm"]["mean"] == pytest.approx(2.0)
    assert head["assd_mm"]["mean"] == pytest.approx(0.397601, rel=1e-5)
    assert head["nsd"]["mean"] == pytest.approx(0.818141, rel=1e-5)


@pytest.mark.parametrize("given", ["abc", -1, 0, True, [1], {"head": 0}, {"head": "2"}])
def test_a_tolerance_must_be_millimetres(given: object) -> None:
    with pytest.raises(ValidationError, match="must be millimetres above 0") as caught:
        EvaluateConfig(nsd_tolerance_mm=given)
    assert caught.value.error_count() == 1


@pytest.mark.slow
def test_worker_processes_change_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def scored(out: str, runtime: Runtime) -> dict:
        pairs = [Pair(name, *(folder / f"{name}.nii.gz" for folder in folders), subject=name) for name in "abc"]
        return evaluate_pairs(pairs, Evaluation(STRUCTURES), tmp_path / out, runtime, go_on=True, worth_a_pool=0)

    pool = Runtime(executor="process", workers=2)
    scored("serial", Runtime(executor="serial"))
    scored("process", pool)
    for name in ("per_case.csv", "summary.json"):
        assert (tmp_path / "process" / name).read_bytes() == (tmp_path / "serial" / name).read_bytes()
    (folders[0] / "a.nii.gz").write_bytes(b"cut off")
    assert [entry["case"] for entry in scored("out", pool)["not_scored"]] == ["a"]


def run_stage(folders: tuple[Path, Path], out: Path, config: EvaluateConfig) -> Path:
    """Runs the stage on finished `load` and `infer` folders that hold the pairs, and one case that failed."""
    common = {
        "shape": (20, 20, 20), "spacing_mm": SPACING_MM, "orientation": "RAS", "sha256": {},
        "affine": tuple(map(tuple, grid().affine)), "split": "training",
    }  # fmt: skip
    cases = [
        Case(id=name, subject=subject, images=(), label=f"ref/{name}.nii.gz", extra={"site": site}, **common)
        for name, subject, site in (("a", "s1", "east"), ("b", "s1", "west"), ("c", "s2", "west"), ("d", "s3", "west"))
    ]
    cases.append(Case(id="unlabelled", subject="s4", images=(), label=None, **common))
    entries = [{"id": name, "prediction": f"predictions/{name}.nii.gz", "message": ""} for name in "abc"]
    entries.append({"id": "d", "prediction": None, "message": "truncated file"})
    entries.append({"id": "unlabelled", "prediction": "predictions/unlabelled.nii.gz", "message": ""})
    return run_stage_on(cases, entries, folders, out, config)


def run_stage_on(
    cases: list[Case], entries: list[dict], folders: tuple[Path, Path], out: Path, config: EvaluateConfig
) -> Path:
    """Runs the stage on cases and on what became of each, with predictions and references in two folders."""
    pred, ref = folders
    load, infer = out / "load", out / "infer"
    for folder in (load, infer, out / "evaluate"):
        folder.mkdir(parents=True)
    dataset = Cases(dataset="cubes", channels=(Channel(name="T1"),), structures=STRUCTURES, cases=tuple(cases))
    (load / "cases.json").write_text(dataset.model_dump_json())
    (load / "location.json").write_text(json.dumps({"root": str(ref.parent)}))
    pred.rename(infer / "predictions")
    (infer / "cases.json").write_text(json.dumps({"cases": entries}))
    EVALUATE.run(EvaluateStageConfig(evaluate=config), {"load": load, "infer": infer}, out / "evaluate", Runtime())
    return out / "evaluate"


def test_stage_writes_what_score_writes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scored = score(*folders, "head=1,tail=2", tmp_path / "scored")
    written = run_stage(folders, tmp_path / "run", EvaluateConfig())
    summary = json.loads((written / "summary.json").read_text(encoding="utf-8"))
    for structure in STRUCTURES:
        assert summary["structures"][structure]["counts"] == scored["structures"][structure]["counts"]
        assert summary["structures"][structure]["nsd"]["mean"] == scored["structures"][structure]["nsd"]["mean"]
    assert summary["not_scored"] == [{"case": "d", "reason": "no prediction: truncated file"}]
    assert summary["n_cases"] == 3
    assert summary["n_subjects"] == 2
    for promise in EVALUATE.outputs:
        assert (written / promise).is_file()


def test_a_pair_that_cannot_be_compared_ends_the_stage(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """It was sound when it was loaded, and the same command scores it once it is so again."""
    out = tmp_path / "run"
    run_stage(folders, out, EvaluateConfig())
    write_label(folders[1] / "b.nii.gz", Volume(cubes(3), grid(shift_mm=1.5)))
    inputs = {name: out / name for name in ("load", "infer")}
    with pytest.raises(DataError, match=r"1 problem\n  b  .*1\.5 mm apart"):
        EVALUATE.run(EvaluateStageConfig(evaluate=EvaluateConfig()), inputs, out / "evaluate", Runtime())


@pytest.mark.parametrize(("asked", "groups"), [("auto", {"split", "site"}), (("born",), {"born"})])
def test_columns_whose_values_single_a_subject_out_make_no_groups(
    folders: tuple[Path, Path], tmp_path: Path, asked: str | tuple[str, ...], groups: set[str]
) -> None:
    """Eight scans of four persons: what a person has alone, however often it is scanned, is no group, unless asked."""
    common = {
        "shape": (20, 20, 20), "spacing_mm": SPACING_MM, "orientation": "RAS", "sha256": {},
        "affine": tuple(map(tuple, grid().affine)), "label": "ref/a.nii.gz",
    }  # fmt: skip
    cases = [
        Case(
            id=f"{person}_{scan}", subject=person, images=(), split="testing" if scan else "training",
            extra={"born": f"195{person}", "scanned": f"{person}{scan}", "site": "east" if person < "2" else "west",
                   "remark": "of ward 7" if person == "3" else ""},
            **common,
        )
        for person in "0123" for scan in (0, 1)
    ]  # fmt: skip
    entries = [{"id": case.id, "prediction": "predictions/b.nii.gz", "message": ""} for case in cases]
    written = run_stage_on(cases, entries, folders, tmp_path / "run", EvaluateConfig(groups=asked))
    assert set(json.loads((written / "summary.json").read_text(encoding="utf-8"))["groups"]) == groups
    columns = (written / "per_case.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"split", *cases[0].extra} & set(columns) == groups


def test_stage_makes_subgroups_of_manifest_columns(folders: tuple[Path, Path], tmp_path: Path) -> None:
    written = run_stage(folders, tmp_path / "run", EvaluateConfig(groups=("site",)))
    sites = json.loads((written / "summary.json").read_text(encoding="utf-8"))["groups"]["site"]
    assert sites["east"]["structures"]["head"]["dice"]["mean"] == pytest.approx(0.9)
    assert sites["west"]["n_cases"] == 2
    assert sites["west"]["structures"]["tail"]["dice"]["mean"] == pytest.approx(0.5)


def test_tolerance_per_structure(folders: tuple[Path, Path], tmp_path: Path) -> None:
    written = run_stage(folders, tmp_path / "run", EvaluateConfig(nsd_tolerance_mm={"head": 2.0}))
    summary = json.loads((written / "summary.json").read_text(encoding="utf-8"))
    assert summary["structures"]["head"]["nsd"]["min"] == 1.0  # one voxel of 2 mm off
    assert summary["definitions"]["nsd_tolerance_mm"] == {"head": 2.0, "tail": 1.0}


def test_tolerance_for_a_structure_that_is_not_there(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no structure 'haed'; did you mean 'head'"):
        run_stage(folders, tmp_path / "run", EvaluateConfig(nsd_tolerance_mm={"haed": 2.0}))


def test_names_that_the_data_lacks_are_refused_before_training(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """What `run` asks as soon as the data has been read."""
    run_stage(folders, tmp_path / "run", EvaluateConfig())
    cases = read_cases(tmp_path / "run" / "load")
    with pytest.raises(ConfigError, match=r"no structure 'haed'; did you mean 'head'"):
        check_evaluate_settings(EvaluateConfig(nsd_tolerance_mm={"haed": 2.0}), cases)
    with pytest.raises(ConfigError, match="no case has a column 'scanner'; there are: site, split"):
        check_evaluate_settings(EvaluateConfig(groups=("scanner",)), cases)
    check_evaluate_settings(EvaluateConfig(nsd_tolerance_mm={"head": 2.0}, groups=("site", "split")), cases)


def test_unknown_group_column(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no case has a column 'scanner'; there are: split, site"):
        run_stage(folders, tmp_path / "run", EvaluateConfig(groups=("scanner",)))
