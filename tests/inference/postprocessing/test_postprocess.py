"""Steps on label maps do what they say, and `auto` takes those that help on validation cases, and no others."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.inference.check_settings import check_structures
from pipeline.inference.postprocessing.component_statistics import LabelPair, measure_case
from pipeline.inference.postprocessing.postprocess import postprocess
from pipeline.inference.postprocessing.select_postprocessing import (
    describe_steps,
    dice_after,
    select_steps,
    verify_selection,
)
from pipeline.inference.predictor_config import PostprocessConfig
from pipeline.io.geometry import Grid
from pipeline.io.volume import Volume
from pipeline.preprocessing.plan import ChannelPlan, Plan

NESTED = {"whole": (1, 2), "core": (2,)}


def make_plan(structures=None, ignore_value=None):
    return Plan(
        spacing_mm=(1, 1, 1),
        channels=(ChannelPlan(name="t1", modality="MR", scheme="zscore"),),
        structures=structures or {"a": (1,), "b": (2,)},
        ignore_value=ignore_value,
        patch_size=(16, 16, 16),
        batch_size=1,
        network={},
        max_steps=1,
        precision="fp32",
        device="cpu",
    )


def done(array, plan=None, **steps):
    volume = Volume(array, Grid(array.shape, np.diag([2.0, 2.0, 2.0, 1.0])))
    return postprocess(volume, PostprocessConfig(**steps), plan or make_plan()).array


def cube(*corners, value=1, side=4, shape=(20, 20, 20)):
    array = np.zeros(shape, np.uint8)
    for x, y, z in corners:
        array[x : x + side, y : y + side, z : z + side] = value
    return array


def chosen(tmp_path, pairs, plan=None):
    """What is chosen on (prediction, reference) arrays on a grid of 2 mm, and the confirmed choice."""
    plan, on_disk = plan or make_plan(), []
    for number, pair in enumerate(pairs):
        paths = [tmp_path / f"{kind}_{number}.nii.gz" for kind in ("pred", "ref")]
        for array, path in zip(pair, paths, strict=True):
            nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), path)
        on_disk.append(LabelPair(str(number), *paths))
    seen = [measure_case(pair, plan) for pair in on_disk]
    choice = select_steps(seen)
    return verify_selection(choice, seen, [dice_after(pair, choice.settings, plan) for pair in on_disk])


def speckled(truth, seed, count=25):
    """A prediction that is right but for single voxels far from anything."""
    places = np.random.default_rng(seed).integers(10, 20, (count, 3))
    noisy = truth.copy()
    noisy[tuple(places.T)] = 1
    return noisy


def test_each_step_does_what_its_name_says():
    array = cube((1, 1, 1), (10, 10, 10), side=5)
    array[3, 3, 3] = 0
    array[18, 1, 1] = 1
    array[1, 18, 1] = 2
    assert done(array, fill_holes=("a",))[3, 3, 3] == 1
    largest = done(array, largest_component=("a",))
    assert (largest == 1).sum() == 125
    assert largest[1, 18, 1] == 2
    assert (done(array, min_volume_ml={"a": 0.01}) == 1).sum() == 249  # a voxel is 0.008 ml
    assert (done(array, min_volume_ml={"a": 0.008}) == 1).sum() == 250
    assert array[3, 3, 3] == 0


def test_a_region_is_taken_with_what_lies_in_it_and_what_leaves_its_core_stays_in_it():
    """The core cuts the rim in two; as a region the structure is one piece, and no piece of it is lost."""
    array = cube((2, 2, 2), side=9)
    array[2:11, 2:11, 6] = 2
    array[3, 3, 3] = 2
    plan = make_plan(NESTED)
    assert (done(array, plan, largest_component=("whole",)) > 0).sum() == 729
    found = done(array, plan, largest_component=("core",))
    assert found[3, 3, 3] == 1
    assert (found == 2).sum() == 81


def test_nothing_found_is_nothing_done():
    array = np.zeros((6, 6, 6), np.uint8)
    steps = {"fill_holes": ("a",), "largest_component": ("a",), "min_volume_ml": {"a": 1.0}}
    assert not done(array, **steps).any()


def test_speckles_are_removed_because_that_raises_the_dice(tmp_path):
    truth = cube((2, 2, 2), side=7)
    choice = chosen(tmp_path, [(speckled(truth, seed), truth) for seed in range(4)])
    assert describe_steps(choice.settings, "a")
    assert describe_steps(choice.settings, "b") == []
    seen = choice.structures["a"]
    assert seen["dice_after"] == 1.0
    assert seen["gain"] == pytest.approx(1 - seen["dice"])
    assert (seen["better"], seen["worse"]) == (4, 0)


def test_two_true_components_are_not_cut_while_speckles_go(tmp_path):
    """The largest component alone would cost a third of the Dice; a least volume takes the speckles only."""
    truth = cube((1, 1, 1), (1, 12, 1), side=5)
    truth[1, 1:6, 1:6] = 0  # the first is the smaller one
    choice = chosen(tmp_path, [(speckled(truth, seed), truth) for seed in range(4)])
    assert choice.settings.largest_component == ()
    assert 0.008 < choice.settings.min_volume_ml["a"] <= 1.0
    assert choice.structures["a"]["dice_after"] > choice.structures["a"]["dice"]
    assert choice.structures["a"]["tried"]["largest_component"] < 0.75


def test_holes_are_filled_where_the_reference_has_none_and_left_where_it_has(tmp_path):
    solid, hollow = cube((2, 2, 2), side=7), cube((2, 2, 2), side=7)
    hollow[4:7, 4:7, 4:7] = 0
    (tmp_path / "x").mkdir()
    assert chosen(tmp_path, [(hollow, solid)] * 3).settings == PostprocessConfig(fill_holes=("a",))
    assert chosen(tmp_path / "x", [(hollow, hollow)] * 3).settings == PostprocessConfig()


def test_what_helps_one_case_and_harms_two_is_left_out(tmp_path):
    """The mean rises, by one case: that is chance, not help."""
    one, two = cube((1, 1, 1), side=4), cube((1, 1, 1), (10, 10, 10), side=4)
    slightly = two.copy()
    slightly[13, 10:14, 10:14] = 0
    lost = cube((1, 1, 1), side=4)
    lost[10, 10:12, 10:12] = 1
    choice = chosen(tmp_path, [(two, one), (lost, two), (lost, two)])
    assert choice.settings == PostprocessConfig()


def test_a_false_alarm_that_is_removed_counts_as_help(tmp_path):
    """Reference empty, a speckle predicted: Dice 0 before, and nothing on both sides is right."""
    truth, alarm = cube((2, 2, 2), side=7), np.zeros((20, 20, 20), np.uint8)
    alarm[15, 15, 15] = 1
    choice = chosen(tmp_path, [(alarm, np.zeros_like(alarm)), (truth, truth), (truth, truth)])
    assert choice.settings.min_volume_ml == {"a": 0.01}
    assert choice.structures["a"]["gain"] == pytest.approx(1 / 3)


def test_ignored_voxels_count_for_nothing(tmp_path):
    truth = cube((2, 2, 2), side=7)
    truth[10:] = 255
    predicted = cube((2, 2, 2), side=7)
    predicted[15, 15, 15] = 1
    choice = chosen(tmp_path, [(predicted, truth)] * 3, make_plan(ignore_value=255))
    assert choice.structures["a"]["dice"] == 1.0
    assert choice.settings == PostprocessConfig()


def test_no_case_gives_no_choice_and_two_are_too_few(tmp_path):
    assert select_steps([]).settings == PostprocessConfig()
    truth = cube((2, 2, 2), side=7)
    assert chosen(tmp_path, [(speckled(truth, seed), truth) for seed in range(2)]).settings == PostprocessConfig()


def test_the_estimate_from_components_is_the_dice_after_the_step(tmp_path):
    """Random maps with holes, speckles and ignored voxels: arithmetic on components equals doing it."""
    rng, plan = np.random.default_rng(1), make_plan(ignore_value=9)
    for number in range(5):
        pred, ref = ((rng.random((12, 12, 12)) < 0.12).astype(np.uint8) for _ in range(2))
        ref[rng.random(ref.shape) < 0.1] = 9
        for name, array in (("p", pred), ("r", ref)):
            nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / f"{name}.nii.gz")
        pair = LabelPair(str(number), tmp_path / "p.nii.gz", tmp_path / "r.nii.gz")
        seen = measure_case(pair, plan)["a"]
        removals = {None: {}, np.inf: {"largest_component": ("a",)}, 0.02: {"min_volume_ml": {"a": 0.02}}}
        for removal, steps in removals.items():
            for pieces, first in ((seen.plain, {}), (seen.filled, {"fill_holes": ("a",)})):
                settings = PostprocessConfig(**steps, **first)
                assert pieces.after(removal) == pytest.approx(dice_after(pair, settings, plan)["a"])


def test_a_prediction_on_another_grid_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not lie on the grid of"):
        chosen(tmp_path, [(cube((2, 2, 2)), cube((2, 2, 2), shape=(20, 20, 22)))])


def test_a_structure_that_there_is_not_is_refused_with_the_key():
    with pytest.raises(ConfigError, match=r"infer.postprocess.largest_component: .* 'spleeen'; did you mean 'spleen'"):
        check_structures(PostprocessConfig(largest_component=("spleeen",)), {"spleen": (1,)})
