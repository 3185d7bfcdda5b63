"""Every configuration that is shipped is valid, and one of them shows every key there is."""

import re

import pytest
import torch
from pydantic import BaseModel

from pipeline.config import load_config
from pipeline.dataset.manifest import read_manifest
from pipeline.planning.make_plan import make_plan
from tests.planning.loaded_cases import make_case, make_cases

NAMES = ["demo", "loss_study", "msd_hippocampus", "openkbp", "sts_multi"]


def keys_of(model: BaseModel, at: str = "") -> set[str]:
    """Every key path of a configuration value; of a choice by name, the keys of the one chosen."""
    keys = set()
    for name in type(model).model_fields:
        path, value = f"{at}{name}", getattr(model, name)
        keys.add(path)
        if isinstance(value, BaseModel):
            keys |= keys_of(value, f"{path}.")
    return keys


def lines_of(path) -> dict[str, str]:
    """Key path to the line that it stands in, read from the text alone."""
    lines, parents = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.match(r"( *)([a-z_0-9]+):", line)
        if found:
            parents = [*parents[: len(found.group(1)) // 2], found.group(2)]
            lines[".".join(parents)] = line
    return lines


@pytest.mark.parametrize("name", NAMES)
def test_is_valid_and_carries_its_own_name(repository, name):
    assert load_config(repository / "configs" / f"{name}.yaml").name == name


def test_all_that_are_shipped_are_tested(repository):
    assert {path.stem for path in (repository / "configs").glob("*.yaml")} == set(NAMES)


def test_codes_are_those_of_dicoms_own_dictionary(repository):
    """As pydicom has it: concept and meaning, of every structure that a shipped configuration codes."""
    from pydicom.sr.codedict import codes

    known = {(code.value, code.meaning) for code in (getattr(codes.SCT, name) for name in codes.SCT.dir())}
    for name in ("msd_hippocampus", "openkbp", "sts_multi"):
        config = load_config(repository / "configs" / f"{name}.yaml")
        manifest = read_manifest(config.data.manifest)
        labels = config.package.labels
        assert set(labels) == set(manifest.labels), name
        for code in (code for label in labels.values() for code in (label.category, label.type) if code):
            assert code.scheme == "SCT" and (code.value, code.meaning) in known, name


def test_planning_the_demo_measures_nothing(repository):
    """So that every machine does the same work."""
    config = load_config(repository / "configs" / "demo.yaml")

    def timer(work, precisions):
        pytest.fail(f"measured {precisions}")

    cases = make_cases([make_case(i, (40, 40, 24), (1.0, 1.0, 2.0)) for i in range(16)])
    train = config.train
    plan = make_plan(
        config.plan, train.network, cases, torch.device("cpu"), train.budget, train.max_steps, train.max_epochs,
        train.accumulate, timer,
    )  # fmt: skip
    assert (plan.precision, plan.max_steps, plan.batch_size) == ("fp32", 120, 4)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_commented(repository, name):
    text = (repository / "configs" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    bare = [
        line
        for before, line in zip(["", *text], text, strict=False)
        if re.match(r" *[a-z_0-9]+: \S", line) and "#" not in line and not before.lstrip().startswith("#")
    ]
    assert not bare


def test_the_hippocampus_configuration_shows_every_key(repository):
    path = repository / "configs" / "msd_hippocampus.yaml"
    assert keys_of(load_config(path)) - set(lines_of(path)) == set()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "demo"])
def test_names_its_manifest_and_structures_that_exist(repository, name):
    config = load_config(repository / "configs" / f"{name}.yaml")
    structures = set(read_manifest(config.data.manifest).labels)
    assert config.data.manifest.parent == repository / "data_manifests"
    assert set(config.package.labels) <= structures
    assert {case.fold for case in read_manifest(config.data.manifest).cases} == set(range(5))
