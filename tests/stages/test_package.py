"""The package stage: one folder with everything that prediction needs, and nothing of the machine that trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipeline.base.errors import DataError
from pipeline.base.execute_stage import execute
from pipeline.base.files import write_json
from pipeline.base.machine import Runtime
from pipeline.base.portable_yaml import portable_yaml
from pipeline.base.stage_outputs import output_digest
from pipeline.config.package import PackageConfig
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.packaging.model_package import load_package
from pipeline.stages.stage_configs import PackageStageConfig
from pipeline.stages.stage_table import PACKAGE
from tests.packaging.finished_stages import SUMMARY, finished_stages

RESOLVED = """\
name: hippocampus
data: {manifest: /home/someone/data_manifests/task04.json, root: /mnt/secret/scans, download: false}
train: {folds: [0], network: {name: unet}}
"""


def _package(
    root: Path,
    folds: tuple[int | str, ...] = (0,),
    postprocess: dict | None = None,
    not_scored: list[dict] | None = None,
    **settings: object,
) -> Path:
    inputs = finished_stages(root, folds)
    if not_scored is not None:
        write_json(inputs["evaluate"] / "summary.json", SUMMARY | {"not_scored": not_scored})
    if postprocess is not None:
        write_json(inputs["infer"] / "postprocess.json", postprocess)
    for folder in inputs.values():
        (folder / "stage.json").write_text('{"outputs": {}}')
    settings = {"bundle": False, **settings}  # the weights are no network's
    reads = PackageStageConfig(package=PackageConfig(**settings), inference=PredictorConfig())
    execute(PACKAGE, reads, inputs, root / "package", Runtime(), resolved_config=RESOLVED)
    return root / "package"


def test_the_package_opens_and_holds_what_prediction_needs(tmp_path: Path) -> None:
    package = load_package(_package(tmp_path, folds=(0, 1)))
    assert package.name == "hippocampus"
    assert [path.name for path in package.weights] == ["fold_0.safetensors", "fold_1.safetensors"]
    trained = (tmp_path / "train" / "fold_1" / "last.safetensors").read_bytes()
    assert package.weights[1].read_bytes() == trained
    assert [label.name for label in package.labels] == ["anterior", "posterior"]
    assert package.metrics["mean"]["dice"]["mean"] == 0.88
    assert package.fingerprint["orientations"] == ["RAS"]


def test_nothing_in_the_package_names_the_machine_that_trained(tmp_path: Path) -> None:
    folder = _package(tmp_path)
    listed = load_package(folder).seal.files
    text = b"".join((folder / name).read_bytes() for name in listed)
    for machine in (b"/home/someone", b"/mnt/secret", str(tmp_path).encode()):
        assert machine not in text


def test_cases_without_a_score_are_counted_in_the_package_and_not_named(tmp_path: Path) -> None:
    reason = "no prediction: /home/someone/scans/ward7_mueller.nii.gz: it is truncated"
    folder = _package(tmp_path, not_scored=[{"case": "ward7_mueller", "reason": reason}])
    text = b"".join((folder / name).read_bytes() for name in load_package(folder).seal.files)
    assert b"mueller" not in text and b"/home/someone" not in text
    assert load_package(folder).metrics["n_not_scored"] == 1


def test_a_portable_configuration_keeps_everything_but_the_folders() -> None:
    config = yaml.safe_load(portable_yaml(RESOLVED))
    assert config["data"] == {"manifest": "task04.json", "root": "scans", "download": False}
    assert config["train"] == {"folds": [0], "network": {"name": "unet"}}


def test_the_card_says_what_the_model_is_not(tmp_path: Path) -> None:
    card = load_package(_package(tmp_path, description="Segments hippocampi.", licence="CC-BY-4.0")).card
    assert "not a medical device" in card
    assert "Research use only" in card
    assert "| anterior | 0.880 [0.870, 0.890] |" in card
    assert "CC-BY-4.0" in card


CHOSEN = {
    "applied": {"fill_holes": [], "largest_component": ["anterior"], "min_volume_ml": {"posterior": 0.02}},
    "asked": "auto",
    "cases": 42,
    "structures": {
        "anterior": {"dice": 0.8701, "dice_after": 0.8745, "better": 9, "worse": 2},
        "posterior": {"dice": 0.8622, "dice_after": 0.8630, "better": 4, "worse": 1},
    },
}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (CHOSEN, "Selected on validation: the steps raised the mean Dice on 42 cases of cross-validation"),
        (CHOSEN, "- anterior: largest component kept; mean Dice 0.8701 without, 0.8745 with (9 cases better, 2 worse)"),
        (CHOSEN, "- posterior: components under 0.02 ml removed; mean Dice 0.8622 without, 0.8630 with (4 "),
        (
            {"applied": "none", "asked": "auto", "cases": 42},
            "None. Steps were tried on 42 cases of cross-validation; none",
        ),
        (
            {"applied": "none", "asked": "auto", "cases": 2, "fewest_cases": 3},
            "None. Steps are chosen on 3 cases of cross-validation or more; here there were 2.",
        ),
        ({"applied": "none", "asked": "none"}, "## Postprocessing\n\nNone.\n"),
        (
            {**CHOSEN, "asked": "steps", "structures": {}},
            "Chosen by the authors, applied to every prediction:\n\n- ante",
        ),
    ],
)
def test_the_card_names_postprocessing_and_what_it_gained(found: dict, said: str, tmp_path: Path) -> None:
    assert said in load_package(_package(tmp_path, postprocess=found)).card


def test_everything_that_a_package_promises_is_there_sealed_and_no_code(tmp_path: Path) -> None:
    liver = {"color": (221, 130, 101), "type": {"value": "10200004", "meaning": "Liver"}}
    folder = _package(tmp_path, labels={"anterior": liver}, licence="CC-BY-4.0")
    sealed = set(load_package(folder).seal.files)
    assert sealed == {
        "LICENSE", "MODEL_CARD.md", "config.yaml", "fingerprint.json", "inference.json", "labels.json",
        "labels/itksnap.txt", "labels/slicer.ctbl", "licences/THIRD_PARTY.md", "metrics/summary.json", "plan.json",
        "sbom.cdx.json", "weights/fold_0.safetensors",
    }  # fmt: skip
    assert json.loads((folder / "package.json").read_text())["format"] == 2
    summary = json.loads((folder / "metrics" / "summary.json").read_text(encoding="utf-8"))
    assert summary["structures"]["anterior"]["dice"]["ci95"] == [0.87, 0.89]
    label = json.loads((folder / "labels.json").read_text())["structures"][0]
    assert (label["color"], label["type"]["scheme"], label["type"]["value"]) == ([221, 130, 101], "SCT", "10200004")
    assert '    1   221  130  101        1  1  1    "anterior"' in (folder / "labels" / "itksnap.txt").read_text()
    assert "1 anterior 221 130 101 255" in (folder / "labels" / "slicer.ctbl").read_text()
    assert "CC-BY-4.0" in (folder / "LICENSE").read_text()
    components = json.loads((folder / "sbom.cdx.json").read_text())["components"]
    assert {"torch", "monai", "safetensors"} <= {entry["name"] for entry in components}


def test_a_model_of_all_cases_is_packaged(tmp_path: Path) -> None:
    package = load_package(_package(tmp_path, folds=("full",)))
    assert [path.name for path in package.weights] == ["fold_full.safetensors"]


def test_labels_for_structures_that_do_not_exist_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"liver.*anterior, posterior"):
        _package(tmp_path, labels={"liver": {"color": (1, 2, 3)}})


def test_equal_inputs_give_equal_packages(tmp_path: Path) -> None:
    first, second = _package(tmp_path / "a"), _package(tmp_path / "b")
    assert output_digest(first) == output_digest(second)
    assert load_package(first).digest == load_package(second).digest


def test_a_zip_opens_as_the_same_package(tmp_path: Path) -> None:
    folder = _package(tmp_path, zip=True)
    archive = load_package(folder / "hippocampus-1.0.0.zip")
    assert archive.digest == load_package(folder).digest
    assert archive.weights[0].read_bytes() == load_package(folder).weights[0].read_bytes()
