"""Configurations: every fault at once, with file, line, key and cure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipeline.base.errors import ConfigError
from pipeline.config import json_schema, load_config, to_yaml
from pipeline.config.pipeline_config import PipelineConfig
from pipeline.runner import STAGES, settings_for

GOOD = """\
name: small
data:
  manifest: manifest.json
train:
  loss:
    name: dice_ce
  network:
    name: unet
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return path

    return write


def _faults(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return re.sub(r" {2,}", "  ", str(caught.value))


def test_a_good_file_loads_frozen(write):
    config = load_config(write(GOOD))
    assert config.name == "small" and config.train.loss.name == "dice_ce"
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"  # type: ignore[misc]


def test_what_training_never_flipped_cannot_be_mirrored(write):
    path = write(GOOD)
    for off in ("train.augment.flip_prob=0", "train.augment.enabled=false"):
        assert "mirror: true needs a training that flips" in _faults(path, "infer.mirror=true", off)
    assert load_config(path, ["infer.mirror=true"]).infer.mirror
    pairs = "plan.left_right_pairs=[[left, right]]"
    assert "0 may not stand in plan.mirror_axes" in _faults(path, "plan.mirror_axes=[0, 1]", pairs)
    assert load_config(path, ["plan.mirror_axes=[1]", pairs]).plan.left_right_pairs == (("left", "right"),)


def test_all_faults_are_named_at_once_with_their_lines(write):
    text = """\
name: small
sed: 3
data:
  manifest: m.json
train:
  max_step: 10
  loss: {name: dice_cee}
infer:
  overlap: 1.0
"""
    message = _faults(write(text), "evaluate.nothing=1")
    assert "has 5 problems" in message
    assert "line 2  sed  unknown key; did you mean 'seed'?" in message
    assert "line 6  train.max_step  unknown key; did you mean 'max_steps'?" in message
    assert "line 7  train.loss.name  unknown name 'dice_cee'; did you mean 'dice_ce'?" in message
    assert "line 9  infer.overlap" in message and "must be less than 1" in message and "1.0" in message
    assert "--set evaluate.nothing=1  evaluate.nothing  unknown key" in message


def test_a_missing_key_names_itself(write):
    assert "data  this key is required and missing" in _faults(write("name: small\n"))


def test_duplicate_keys_are_refused(write):
    assert "line 3  name: this key stands already on line 1" in _faults(
        write("name: a\ndata: {manifest: m.json}\nname: b\n")
    )


def test_a_number_in_exponent_form_is_a_number(write):
    config = load_config(write(GOOD), ["train.optimizer={name: sgd, lr: 1e-4}"])
    assert config.train.optimizer.lr == 1e-4


def test_overrides_go_over_the_file(write):
    config = load_config(write(GOOD), ["seed=7", "train.max_steps=20"])
    assert (config.seed, config.train.max_steps) == (7, 20)


@pytest.mark.parametrize("text", ["seed", "=3", "train..x=1", "seed=[1"])
def test_a_bad_override_is_named(write, text):
    assert f"--set {text}" in _faults(write(GOOD), text)


@pytest.mark.parametrize("name", ["../evil", "", "a/b", "-x", "a b"])
def test_a_name_must_be_a_folder_name(write, name):
    assert "usable as a folder name" in _faults(write(GOOD), f"name='{name}'")


def test_relative_paths_belong_to_the_file_and_overrides_to_the_user(write, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load_config(write(GOOD), ["data.root=scans"])
    assert config.data.manifest == tmp_path / "manifest.json"
    assert config.data.root == elsewhere / "scans"


def test_the_resolved_configuration_is_itself_runnable(write, tmp_path):
    config = load_config(write(GOOD), ["seed=3"])
    saved = tmp_path / "else" / "config.yaml"
    saved.parent.mkdir()
    saved.write_text(to_yaml(config))
    assert load_config(saved) == config


def test_the_schema_is_json_and_knows_every_section():
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["properties"]) == set(PipelineConfig.model_fields)
    assert schema["additionalProperties"] is False


def test_every_section_refuses_unknown_keys(write):
    for section in ("data", "executor", *STAGES):
        extra = {section: {"surprise": 1, **({"manifest": "m.json"} if section == "data" else {})}}
        text = yaml.safe_dump({"name": "x", "data": {"manifest": "m.json"}, **extra})
        assert f"{section}.surprise  unknown key" in _faults(write(text))


def test_what_a_stage_reads_exists_and_changes_only_with_its_keys(write):
    base, other = load_config(write(GOOD)), load_config(write(GOOD), ["seed=9"])
    changed = {name for name, stage in STAGES.items() if settings_for(stage, base) != settings_for(stage, other)}
    assert changed == {"train", "report"}


def test_an_override_of_a_choice_without_its_name_means_the_default(write):
    config = load_config(write("name: small\ndata: {manifest: m.json}\n"), ["train.optimizer.lr=1e-4"])
    assert (config.train.optimizer.name, config.train.optimizer.lr) == ("adamw", 1e-4)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("plan.patch_size=[16, 16]", "plan.patch_size  3 values are needed"),
        ("plan.patch_size=16", "plan.patch_size  must be a list"),
        ("plan.patch_size=[16, 0, 16]", "must be greater than or equal to 4"),
        ("train=3", "train  must be a section of keys and values, got 3"),
        ("train.folds=none", "must be a list, such as [1, 2, 3], got 'none'; or 'none' is not allowed"),
        ("train.budget=3x", "'3x' is not of the right form"),
        ("device=gpu", "auto, cuda, cuda:N or cpu"),
        ("seed=99999999999999", "must be less than or equal to"),
        ("train.optimizer.lr=fast", "--set train.optimizer.lr=fast  train.optimizer.lr  must be a valid number"),
    ],
)
def test_a_wrong_value_is_one_problem_in_plain_words(write, override, words):
    message = _faults(write("name: small\ndata: {manifest: m.json}\n"), override)
    assert "has 1 problem\n" in message and words in message and "<class" not in message


def test_a_manifest_stands_for_a_configuration(tmp_path):
    config = load_config(tmp_path / "my scans.json", ["data.root=/scans"])
    assert config.name == "my_scans" and config.data.manifest == tmp_path / "my scans.json"
