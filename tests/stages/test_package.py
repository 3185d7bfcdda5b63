"""The package stage: one folder with everything that prediction needs, and nothing of the machine that trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.base.errors import DataError
from pipeline.base.runtime import Runtime
from pipeline.base.stage import execute, output_digest
from pipeline.base.yaml_source import portable_yaml
from pipeline.inference.settings import InferenceSettings
from pipeline.serving.model import load_package
from pipeline.stages.package import STAGE, PackageConfig, PackageReads
from tests.serving.finished_stages import finished_stages

RESOLVED = """\
name: hippocampus
data: {manifest: /home/someone/data_manifests/task04.json, root: /mnt/secret/scans, download: false}
train: {folds: [0], network: {name: unet}}
"""


def _package(root: Path, folds: tuple[int | str, ...] = (0,), **settings: object) -> Path:
    inputs = finished_stages(root, folds)
    for folder in inputs.values():
        (folder / "stage.json").write_text('{"outputs": {}}')
    reads = PackageReads(package=PackageConfig(**settings), inference=InferenceSettings())
    execute(STAGE, reads, inputs, root / "package", Runtime(), resolved_config=RESOLVED)
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
