"""What training says and writes while it goes on: rows over the steps since the last one, and faults by their step."""

from __future__ import annotations

import csv
import math

import pytest
import torch

from pipeline.training.distributed import World
from pipeline.training.loggers.train_logger import TrainLogger, format_dice
from pipeline.training.roll_back_after_nan import NotFiniteError
from pipeline.training.save_and_resume import TrainState
from tests.training.tiny_training import make_fold_run


class Clock:
    """A clock that goes on only as it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def make_logger(folder, clock=None, state=None, **fold):
    fold |= {} if clock is None else {"clock": clock}
    return TrainLogger(make_fold_run(folder, **fold), state or TrainState(), torch.device("cpu"))


def record(logger, loss, norm=1.0, look=True, scaled=False):
    """One more step with this loss and gradient norm."""
    logger.train_state.step += 1
    logger.record_step(torch.tensor(loss), torch.tensor(norm), look, scaled)


def rows(folder, name):
    with (folder / name).open(newline="", encoding="utf-8") as stream:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]


def test_a_row_is_the_mean_over_the_steps_since_the_last_one(tmp_path):
    with make_logger(tmp_path) as logger:
        for loss, norm in ((1.0, 4.0), (2.0, 5.0), (6.0, 9.0)):
            record(logger, loss, norm)
        logger.write_row(lr=0.1, validated=False)
        record(logger, 8.0, 2.0)
        logger.write_row(lr=0.05, validated=False)
    first, second = rows(tmp_path, "metrics.csv")
    assert first == {"step": 3, "lr": 0.1, "loss": 3.0, "grad_norm": 6.0}
    assert second == {"step": 4, "lr": 0.05, "loss": 8.0, "grad_norm": 2.0}


def test_numbers_that_nobody_looked_at_yet_are_in_the_row_that_does(tmp_path):
    """As on a GPU, which is waited for once in several steps."""
    with make_logger(tmp_path) as logger:
        record(logger, 1.0, look=False)
        record(logger, 2.0, look=False)
        assert logger.train_state.losses == []
        record(logger, 6.0)
        logger.write_row(lr=0.1, validated=False)
    assert rows(tmp_path, "metrics.csv")[0]["loss"] == 3.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("what", "values"), [("loss", ("bad", 1.0)), ("gradient", (1.0, "bad"))])
def test_what_is_not_finite_is_a_fault_of_its_own_step(tmp_path, bad, what, values):
    """Steps 1 to 5 are fine. It is in step 7, and looked for after step 9."""
    logger = make_logger(tmp_path)
    for _ in range(5):
        record(logger, 1.0)
    record(logger, 1.0, look=False)
    record(logger, *(bad if value == "bad" else value for value in values), look=False)
    record(logger, 1.0, look=False)
    with pytest.raises(NotFiniteError, match=f"the {what} is not a finite number") as fault:
        record(logger, 1.0)
    assert fault.value.step == 7


def test_steps_count_on_after_resuming(tmp_path):
    logger = make_logger(tmp_path, state=TrainState(step=40))
    record(logger, 1.0, look=False)
    with pytest.raises(NotFiniteError) as fault:
        record(logger, math.nan)
    assert fault.value.step == 42


def test_a_scaled_gradient_may_be_infinite_and_is_left_out(tmp_path):
    """In fp16 the scale is lowered then, and the step is not taken. A loss that is not finite stays a fault."""
    with make_logger(tmp_path) as logger:
        record(logger, 1.0, math.inf, scaled=True)
        logger.write_row(lr=0.1, validated=False)
        record(logger, 1.0, 2.0, scaled=True)
        record(logger, 3.0, math.inf, scaled=True)
        logger.write_row(lr=0.1, validated=False)
        with pytest.raises(NotFiniteError, match="loss"):
            record(logger, math.nan, scaled=True)
    first, second = rows(tmp_path, "metrics.csv")
    assert "grad_norm" not in first
    assert (second["loss"], second["grad_norm"]) == (2.0, 2.0)


def test_the_row_of_a_validation_has_its_dice(tmp_path):
    with make_logger(tmp_path, structures=("a", "b", "absent")) as logger:
        logger.train_state.dice = {"a": 0.5, "b": 0.9}
        for validated in (True, False):
            record(logger, 1.0)
            logger.write_row(lr=0.1, validated=validated)
    with_dice, without = rows(tmp_path, "metrics.csv")
    assert {key: value for key, value in with_dice.items() if "dice" in key} == {
        "dice_mean": 0.7, "dice_a": 0.5, "dice_b": 0.9
    }  # fmt: skip
    assert not any("dice" in key for key in without)


def test_time_adds_up_by_purpose_since_the_last_row(tmp_path, clock):
    """Batches of two patches. Validation is no time of the patches, and what has no purpose counts in all."""
    with make_logger(tmp_path, clock) as logger:
        for data, step in ((1.0, 2.0), (0.5, 0.5)):
            with logger.timed("data"):
                clock.now += data
            with logger.timed("step"):
                clock.now += step
            record(logger, 1.0)
        clock.now += 10.0
        with logger.timed("validation"):
            clock.now += 5.0
        logger.write_row(lr=0.1, validated=False)
        with logger.timed("data"):
            clock.now += 0.25
        record(logger, 1.0)
        logger.write_row(lr=0.1, validated=False)
    first, second = rows(tmp_path, "timing.csv")
    assert first.pop("peak_memory_gib") > 0 and second.pop("peak_memory_gib") > 0
    assert first == {
        "step": 2, "seconds": 19.0, "data_s": 1.5, "step_s": 2.5, "validation_s": 5.0, "patches_per_s": 2 * 2 / 4
    }  # fmt: skip
    assert second == {
        "step": 3, "seconds": 19.25, "data_s": 0.25, "step_s": 0.0, "validation_s": 0.0, "patches_per_s": 1 * 2 / 0.25
    }  # fmt: skip


def test_the_time_of_earlier_runs_counts(tmp_path, clock):
    logger = make_logger(tmp_path, clock, TrainState(step=4, seconds=30.0))
    clock.now += 2.0
    record(logger, 1.0)
    assert logger.train_state.seconds == 32.0
    clock.now += 1.0
    logger.update_elapsed()
    assert logger.train_state.seconds == 33.0


def test_the_time_left_goes_by_the_steps_of_this_run(tmp_path, clock, caplog):
    """Two steps of ten were done before. Three more took 6 s, so that five take 10."""
    logger = make_logger(tmp_path, clock, TrainState(step=2, dice={"box": 0.25}), max_steps=10)
    caplog.set_level("INFO")
    logger.log_progress()
    assert "left" not in caplog.text
    for loss in (1.0, 2.0, 3.0):
        with logger.timed("step"):
            clock.now += 2.0
        record(logger, loss)
    logger.log_progress()
    assert (
        "  step 5/10  loss 2.000  Dice 0.250  data 0% step 100% validation 0%  (box 0.250)  10.0 s left" in caplog.text
    )


def test_of_several_processes_the_first_alone_writes_and_speaks(tmp_path, caplog):
    caplog.set_level("INFO")
    state = TrainState(step=1, losses=[1.0], norms=[1.0])
    with make_logger(tmp_path, state=state, world=World(rank=1, size=2)) as logger:
        logger.write_row(lr=0.1, validated=False)
        logger.log_progress()
    assert not list(tmp_path.iterdir()) and caplog.text == ""
    assert state.losses == state.norms == []


def test_of_many_structures_a_line_names_the_worst():
    dice = {f"s{i}": i / 100 for i in range(99, -1, -1)}
    assert format_dice(dice) == (
        "  (lowest of 100: s0 0.000, s1 0.010, s2 0.020, s3 0.030, s4 0.040, s5 0.050, s6 0.060, s7 0.070)"
    )
    assert format_dice({"liver": 0.9, "spleen": 0.25}) == "  (liver 0.900, spleen 0.250)"
    assert format_dice({}) == ""
