"""What a budget makes planning count: the step that training takes, its threads, its validation, its compiling."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError
from pipeline.base.stage_cache import cache_key_config
from pipeline.config import load_config
from pipeline.config.plan import PlanConfig, StepCostConfig
from pipeline.config.train import TrainConfig
from pipeline.models.networks.network_config import UNetConfig
from pipeline.planning import make_plan as make_plan_module
from pipeline.planning.make_plan import make_plan
from pipeline.planning.step_timing import Precision, StepSpec, TimedStep, seconds_per_step
from pipeline.planning.training_budget import COMPILE_SECONDS, STEPS_AND_VALIDATION
from pipeline.planning.validation_cost import ValidationCost
from pipeline.preprocessing.plan import Plan
from pipeline.runner import settings_for
from pipeline.stages.stage_table import PLAN
from pipeline.training.network_loss_optimizer import make_train_step
from pipeline.training.train_context import TrainContext
from pipeline.training.validation_schedule import plan_validation
from tests.planning.loaded_cases import make_case, make_cases

CPU = torch.device("cpu")
CASES = make_cases([make_case(i, (32, 32, 32), (1.0, 1.0, 1.0)) for i in range(20)])
IGNORING = CASES.model_copy(update={"ignore_value": 9})
OVERLAPPING = make_cases(CASES.cases, overlapping=True)
NETWORK = UNetConfig(channels=(2, 2, 2), strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)))
PINS = PlanConfig(patch_size=(8, 8, 8), batch_size=2, precision="fp32")
BUDGET_S = 120.0


def seconds_by_loss(work: StepSpec, precisions: Sequence[Precision]) -> dict[Precision, float]:
    """A machine that takes 0.1 s a step, and half as much again to sort the voxels."""
    return dict.fromkeys(precisions, 0.15 if work.loss.name == "dice_topk" else 0.1)


def planned(pace: StepCostConfig | None = None, cases: Any = CASES, **given: Any) -> Plan:
    given.setdefault("timer", seconds_by_loss)
    return make_plan(PINS, NETWORK, cases, CPU, given.pop("budget", f"{BUDGET_S:g}s"), pace=pace, **given)


def measured(config: TrainConfig, cases: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, StepSpec, int | None]:
    """The plan that `config` gets for its budget, and what is timed for it with how many threads."""
    asked = []

    def timed(work: StepSpec, precisions: Sequence[Precision], device: torch.device, threads: int | None) -> Any:
        asked.append((work, threads))
        return seconds_by_loss(work, precisions)

    monkeypatch.setattr(make_plan_module, "seconds_per_step", timed)
    whole = SimpleNamespace(plan=PINS, train=config, device="cpu")
    reads = settings_for(PLAN, whole)  # type: ignore[arg-type]
    plan = planned(reads, cases, timer=None, budget=config.budget)
    return plan, *asked[-1]


@pytest.mark.parametrize("cases", [CASES, IGNORING, OVERLAPPING], ids=["exclusive", "ignoring", "overlapping"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "loss",
    [
        {"name": "dice_ce"},
        {"name": "dice_ce", "lambda_ce": 0.3, "include_background": True},
        {"name": "dice", "squared_pred": True},
        {"name": "ce"},
        {"name": "dice_focal"},
        {"name": "dice_topk", "top_percent": 25},
        {"name": "focal", "gamma": 1},
        {"name": "generalized_dice"},
        {"name": "tversky"},
    ],
    ids=lambda loss: "-".join(map(str, loss.values())),
)
def test_the_step_that_is_timed_has_the_loss_and_the_optimiser_of_training(loss, optimizer, cases, monkeypatch) -> None:
    """Both losses say the same of the same logits and labels, and both optimisers do the same but for the rate."""
    config = TrainConfig(network=NETWORK, budget="2m", loss=loss, optimizer={"name": optimizer})
    plan, work, _ = measured(config, cases, monkeypatch)
    timed, train_step = TimedStep(work, "fp32", CPU), make_train_step(_shop(config, plan))
    logits = torch.randn(2, plan.out_channels, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (cases is IGNORING) == bool((timed.label == 255).any())
    assert torch.equal(timed.loss(logits, timed.label), train_step.loss(logits, timed.label))
    kinds = [(type(each), {**each.defaults, "lr": 0}) for each in (timed.optimizer, train_step.optimizer)]
    assert kinds[0] == kinds[1]
    timed()


def test_weighted_classes_are_timed_as_weighted(monkeypatch) -> None:
    """Which weights does not matter to the time: those that are counted from the data come later."""
    config = TrainConfig(network=NETWORK, budget="2m", loss={"name": "ce", "class_weights": "inverse_frequency"})
    plan, work, _ = measured(config, CASES, monkeypatch)
    timed, train_step = TimedStep(work, "fp32", CPU), make_train_step(_shop(config, plan))
    given = [loss.modules_of_terms[0].weights for loss in (timed.loss, train_step.loss)]  # type: ignore[union-attr]
    assert [len(weights) for weights in given] == [3, 3]


def _shop(config: TrainConfig, plan: Plan) -> TrainContext:
    store: Any = SimpleNamespace(cases={})
    return TrainContext(config, plan, store, 0, CPU)


def test_steps_are_timed_with_the_threads_of_training(monkeypatch) -> None:
    config = TrainConfig(network=NETWORK, budget="2m", num_threads=1)
    assert measured(config, CASES, monkeypatch)[2] == 1
    plan, _, threads = measured(config.model_copy(update={"num_threads": None}), CASES, monkeypatch)
    assert threads == plan.num_threads


def test_a_slower_loss_gets_fewer_steps_and_it_is_said() -> None:
    usual, sorting = planned(), planned(StepCostConfig(loss={"name": "dice_topk"}))
    assert sorting.max_steps == pytest.approx(usual.max_steps / 1.5, abs=1)
    assert "0.158 s a step with dice_topk and adamw as measured here, 8% left" in sorting.reasons["max_steps"]


def test_compiling_is_taken_from_the_budget(caplog) -> None:
    compiled = planned(StepCostConfig(compile=True))
    assert compiled.max_steps == pytest.approx(planned().max_steps * (1 - COMPILE_SECONDS / BUDGET_S), abs=1)
    assert "left for validation, compiling, start-up and saving" in compiled.reasons["max_steps"]
    assert "little is left" not in caplog.text
    assert planned(StepCostConfig(compile=True), budget="10s").max_steps == 1
    assert (
        "100% of it go into validation, compiling, start-up and saving, and little is left to learn in" in caplog.text
    )


KEYS = {
    "train.loss.name": "dice_topk",
    "train.optimizer.name": "sgd",
    "train.num_threads": "1",
    "train.compile": "true",
    "train.validation.share": "0.2",
    "train.validation.interval": "50",
    "train.validation.cases": "3",
    "train.validation.overlap": "0.25",
}


@pytest.mark.parametrize("steps", ["train.max_steps=10", "train.budget=1m"])
@pytest.mark.parametrize(("key", "value"), KEYS.items())
def test_what_takes_time_is_measured_with_a_plan_and_never_makes_another(repository, key, value, steps) -> None:
    """Steps are frozen: who compares losses changes one key, and trains as many steps with each."""
    manifest = repository / "data_manifests" / "msd_task04_hippocampus.json"
    one, other = (settings_for(PLAN, load_config(manifest, [steps, *more])) for more in ([], [f"{key}={value}"]))
    assert one != other
    assert cache_key_config(PLAN, one) == cache_key_config(PLAN, other)


@pytest.mark.parametrize("changed", ["train.optimizer.lr=0.1", "train.ema=0.1", "train.folds=all", "train.grad_clip=1"])
def test_what_takes_no_time_is_not_read(repository, changed: str) -> None:
    manifest = repository / "data_manifests" / "msd_task04_hippocampus.json"
    one, other = (settings_for(PLAN, load_config(manifest, more)) for more in ([], [changed]))
    assert one == other


def test_pinned_validations_are_counted_by_hand() -> None:
    """Four cases of 16³ have 27 windows of 8³ each, 36 patches' worth; every ten steps of two patches: 1.8 times."""
    shapes = [(16, 16, 16)] * 5
    of = {"overlap": 0.5, "shapes": shapes}
    assert ValidationCost(share=0.05, interval=10, cases=4, **of).share_of_steps((8, 8, 8), 2) == pytest.approx(1.8)
    assert ValidationCost(share=0.05, interval=10, **of).share_of_steps((8, 8, 8), 2) == pytest.approx(0.45)
    assert ValidationCost(share=0.05, interval=1000, **of).share_of_steps((8, 8, 8), 2) == 0.05
    assert ValidationCost(share=0.05, cases=4, **of).share_of_steps((8, 8, 8), 2) == 0.05


@example(sizes=[33, 8], steps=223, interval=112, cases=None, share=0.375)  # windows side by side: more would not fit
@given(
    sizes=st.lists(st.integers(8, 40), min_size=1, max_size=8),
    steps=st.integers(20, 2000),
    interval=st.integers(1, 300),
    cases=st.none() | st.integers(1, 10),
    share=st.floats(0.01, 0.5),
)
@settings(max_examples=80, deadline=None)
def test_training_validates_no_more_than_planning_left_time_for(sizes, steps, interval, cases, share) -> None:
    """Where cases are alike: at most what was counted, and one validation more, which follows the last step."""
    shapes = {f"c{i}": (sizes[0],) * 3 for i in range(len(sizes))}
    left = ValidationCost(share, interval, cases, 0.5, list(shapes.values())).share_of_steps((8, 8, 8), 2) * 2 * steps
    done = plan_validation(shapes, (8, 8, 8), 2, steps, share, 0.5, interval, cases)
    one = ValidationCost(interval=1, overlap=done.overlap, shapes=[shapes["c0"]])
    each = len(done.cases) * one.share_of_steps((8, 8, 8), 1)
    rounds = sum(done.due(step, steps) for step in range(1, steps + 1))
    assert (rounds - 1) * each <= left * 1.0001


def test_steps_leave_time_for_validation() -> None:
    """Every fifth step one image of 32³, 343 windows of 8³: 114.3 patches' worth, 11.4 times the five steps' ten."""
    plan = planned(StepCostConfig(validation_interval=5, validation_cases=1))
    spent = plan.max_steps * 0.105 * (1 + 343 / 3 / 10)
    assert 0.97 * STEPS_AND_VALIDATION * BUDGET_S < spent <= STEPS_AND_VALIDATION * BUDGET_S
    assert "92% left for validation" in plan.reasons["max_steps"]


def test_want_of_memory_while_measuring_is_a_sentence_and_no_other_fault_is() -> None:
    def fails(message: str) -> Any:
        def step() -> None:
            raise RuntimeError(message)

        return lambda *_: step

    def measure(make_step: Any) -> None:
        seconds_per_step(StepSpec({}, 1, 2, (8, 8, 8), 3), ["fp32"], CPU, torch.get_num_threads(), make_step)

    with pytest.raises(ConfigError, match=r"a step of 3 patches of \[8, 8, 8\] does not fit into the memory of cpu"):
        measure(fails("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    with pytest.raises(RuntimeError, match="mat1"):
        measure(fails("mat1 and mat2 shapes cannot be multiplied"))
