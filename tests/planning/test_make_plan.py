"""The plan as a whole, with a clock that we set: budgets, pins and their price, memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from pipeline.base.errors import ConfigError
from pipeline.config.plan import PlanConfig
from pipeline.models.networks.network_config import SegResNetConfig, UNetConfig, VNetConfig, size_divisor
from pipeline.planning.make_plan import make_plan
from pipeline.planning.plan_table import plan_rows
from pipeline.planning.step_timing import (
    Precision,
    StepSpec,
    TimedStep,
    gpu_as_in_training,
    seconds_per_step,
    time_interleaved,
)
from pipeline.planning.training_budget import STEPS_AND_VALIDATION, seconds
from pipeline.sampling.store_size import planned_shape
from tests.planning.loaded_cases import make_case, make_cases

CPU = torch.device("cpu")
BUDGET_SHARE = STEPS_AND_VALIDATION / 1.05  # of the steps: validation takes 5 % of their time
CASES = make_cases([make_case(i, (35, 50, 36), (1.0, 1.0, 1.0)) for i in range(200)])


class Clock:
    """A machine on which a patch takes a given time, four times it for 32 channels, and bf16 halves it."""

    def __init__(self, seconds_per_patch: float) -> None:
        self.seconds_per_patch, self.asked = seconds_per_patch, 0

    def __call__(self, work: StepSpec, precisions: Sequence[Precision]) -> dict[Precision, float]:
        self.asked += 1
        wide = work.network.get("channels", [16])[0] / 16
        step = self.seconds_per_patch * work.batch_size * wide**2
        return {precision: step * (0.5 if precision == "bf16" else 1.0) for precision in precisions}


def plan_with(seconds_per_patch: float = 0.1, config: PlanConfig | None = None, **given: Any) -> Any:
    network = given.pop("network", UNetConfig())
    given.setdefault("budget", "5m")
    timer = given.pop("timer", Clock(seconds_per_patch))
    return make_plan(config or PlanConfig(), network, given.pop("cases", CASES), CPU, timer=timer, **given)


def test_the_steps_fit_the_budget() -> None:
    for budget in ("2m", "10h"):
        plan = plan_with(budget=budget)
        used = plan.max_steps * plan.predicted["seconds_per_step"]
        assert 0.8 * BUDGET_SHARE * seconds(budget) < used <= BUDGET_SHARE * seconds(budget)


def test_time_buys_patch_batch_and_width() -> None:
    """0.05 s a patch in bf16: 5 minutes are 5 257 patches, 30 are 31 543, an hour 63 086, 10 hours 157 714 of the
    network twice as wide."""
    plans = [plan_with(budget=budget) for budget in ("5m", "30m", "1h", "10h")]
    small, large = (40, 40, 40), (40, 56, 40)
    assert [(p.patch_size, p.batch_size, p.network["channels"][0]) for p in plans] == [
        (small, 2, 16),
        (small, 2, 16),
        (large, 4, 16),
        (large, 4, 32),
    ]
    assert "more teach more than larger ones" in plans[0].reasons["patch_size"]


def test_without_a_budget_or_with_a_pin_time_decides_nothing_about_the_patch() -> None:
    assert plan_with(budget=None, max_steps=10).patch_size == (40, 56, 40)
    assert plan_with(config=PlanConfig(patch_size=(40, 56, 40))).patch_size == (40, 56, 40)


def test_the_faster_precision_is_taken() -> None:
    assert plan_with().precision == "bf16"
    plan = plan_with(timer=lambda work, precisions: {name: 0.2 if name == "bf16" else 0.1 for name in precisions})
    assert plan.precision == "fp32" and "2 times as fast as bf16" in plan.reasons["precision"]


def test_nothing_is_measured_where_all_is_pinned() -> None:
    clock = Clock(0.1)
    plan = plan_with(timer=clock, budget=None, max_steps=77, config=PlanConfig(precision="fp32", batch_size=3))
    assert clock.asked == 0
    assert (plan.max_steps, plan.precision, plan.batch_size) == (77, "fp32", 3)


def test_max_steps_go_before_the_budget_and_epochs_count_cases() -> None:
    plan = plan_with(max_steps=50)
    assert plan.max_steps == 50 and "the budget of 5m is not looked at" in plan.reasons["max_steps"]
    plan = plan_with(budget=None, max_epochs=7)
    assert plan.max_steps == math.ceil(7 * 200 / plan.batch_size)
    assert "no train.budget is given" in plan_with(budget=None).reasons["max_steps"]
    assert "the budget of 5m is not looked at" in plan_with(max_epochs=7).reasons["max_steps"]


def test_accumulated_batches_are_counted() -> None:
    """A step of four batches takes four times as long and shows four times the patches."""
    one, four = plan_with(budget="2m"), plan_with(budget="2m", accumulate=4)
    assert four.batch_size == one.batch_size and four.max_steps == one.max_steps // 4
    assert four.predicted["seconds_per_step"] == pytest.approx(4 * one.predicted["seconds_per_step"], rel=1e-3)
    assert four.predicted["training_minutes"] <= 2 * BUDGET_SHARE
    assert "a step of 4 batches" in four.reasons["max_steps"]
    epochs = plan_with(budget=None, max_epochs=7, accumulate=4)
    assert epochs.max_steps == math.ceil(7 * 200 / (4 * epochs.batch_size))


@pytest.mark.parametrize("network", [UNetConfig(), VNetConfig(), SegResNetConfig()])
def test_patches_suit_every_network(network: Any) -> None:
    plan = plan_with(network=network, budget=None, max_steps=10)
    assert all(size % step == 0 for size, step in zip(plan.patch_size, size_divisor(plan.network), strict=True))
    assert all(size >= n for size, n in zip(plan.patch_size, (35, 50, 36), strict=True))


@pytest.mark.slow
def test_pins_are_kept_and_their_price_is_said() -> None:
    config = PlanConfig(patch_size=(40, 56, 80), spacing_mm=(1.0, 1.0, 2.0), crop="nonzero", mirror_axes=(0, 1))
    plan = plan_with(config=config)
    assert (plan.patch_size, plan.spacing_mm, plan.crop, plan.mirror_axes) == (
        (40, 56, 80), (1.0, 1.0, 2.0), "nonzero", (0, 1),
    )  # fmt: skip
    assert "times the time and memory a patch" in plan.reasons["patch_size"]
    assert "0.5 times the voxels" in plan.reasons["spacing_mm"]
    assert "open it would be none" in plan.reasons["crop"]
    for batch in (2, 3):
        pinned = plan_with(budget="1h", config=PlanConfig(batch_size=batch))
        assert pinned.batch_size == batch and "pinned; open it would be 4" in pinned.reasons["batch_size"]


def test_whole_is_a_patch_that_every_image_fits_into() -> None:
    """One image is larger along one axis, another along another."""
    shapes = [(35, 50, 36)] * 9 + [(61, 50, 36), (35, 50, 70)]
    cases = make_cases([make_case(i, shape, (1.0, 1.0, 1.0)) for i, shape in enumerate(shapes)])
    plan = plan_with(config=PlanConfig(patch_size="whole"), cases=cases)
    divisor = size_divisor(plan.network)
    assert all(n <= size < n + step for n, size, step in zip((61, 50, 70), plan.patch_size, divisor, strict=True))
    assert all(size % step == 0 for size, step in zip(plan.patch_size, divisor, strict=True))
    assert "the largest image, [61, 50, 70]" in plan.reasons["patch_size"]
    with pytest.raises(ConfigError, match=r"plan\.patch_size: training would need about .* but 0\.01 GiB may be used"):
        plan_with(config=PlanConfig(patch_size="whole", memory_gib=0.01), cases=cases, timer=(clock := Clock(0.1)))
    assert clock.asked == 0  # real steps of it could be more than memory holds


def test_pins_that_do_not_suit_are_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigError, match=r"\[40, 50, 40\] is not divisible by .* use \[40, 48, 40\]"):
        plan_with(config=PlanConfig(patch_size=(40, 50, 40)))
    with pytest.raises(ConfigError, match=r"'soon' is no time"):
        plan_with(budget="soon")


def test_given_strides_and_channels_are_kept() -> None:
    network = UNetConfig(channels=(8, 16, 32))
    plan = plan_with(network=network, budget="10h")
    assert plan.network["channels"] == [8, 16, 32] and len(plan.network["strides"]) == 3
    network = UNetConfig(strides=((1, 1, 1), (2, 2, 2), (2, 2, 1)))
    assert plan_with(network=network).network["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 1]]


def test_levels_with_a_loss_are_counted_once_the_patch_says_how_many_there_are() -> None:
    """A patch of 40³ is halved three times: of four levels two can have a loss of their own; of 64³ three."""
    network = UNetConfig(deep_supervision=3)
    with pytest.raises(ConfigError, match=r"network\.deep_supervision: 3 .* the network has 4 levels: at most 2"):
        plan_with(network=network)
    with pytest.raises(ConfigError, match=r"patch of \[16, 16, 16\] the network has 3 levels: at most 1"):
        plan_with(network=UNetConfig(deep_supervision=2), config=PlanConfig(patch_size=(16, 16, 16)))
    assert plan_with(network=network, config=PlanConfig(patch_size=(64, 32, 32))).network["deep_supervision"] == 3


def test_weights_of_classes_that_no_case_holds_are_said() -> None:
    cases = make_cases(CASES.cases, structures=["a", "b", "c"])
    assert "no training case holds c: as the smallest" in plan_with(cases=cases).reasons["class_weights"]
    assert "no training case" not in plan_with().reasons["class_weights"]


def test_little_memory_makes_smaller_patches_and_none_is_refused() -> None:
    large = make_cases([make_case(i, (200, 200, 200), (1.0, 1.0, 1.0)) for i in range(20)])
    wide, narrow = (plan_with(cases=large, max_steps=9, config=PlanConfig(memory_gib=gib)) for gib in (8.0, 0.8))
    assert math.prod(narrow.patch_size) < math.prod(wide.patch_size)
    assert narrow.predicted["train_memory_gib"] <= 0.8
    with pytest.raises(ConfigError, match=r"plan\.memory_gib: even a patch of"):
        plan_with(cases=large, config=PlanConfig(memory_gib=0.1))


@pytest.mark.slow
def test_memory_also_bounds_what_time_could_buy() -> None:
    """10 hours buy 32 channels and batches of 4; where only half of that fits, less is chosen, and said."""
    rich = plan_with(budget="10h")
    half = PlanConfig(memory_gib=0.5 + 0.5 * (rich.predicted["train_memory_gib"] - 0.5))
    poor = plan_with(budget="10h", config=half)
    assert poor.predicted["train_memory_gib"] <= half.memory_gib < rich.predicted["train_memory_gib"]
    bought = [(plan.network["channels"][0], plan.batch_size) for plan in (rich, poor)]
    assert bought[0] == (32, 4) and bought[1] != bought[0]


@pytest.mark.slow
def test_pins_that_memory_does_not_hold_are_refused_and_what_is_open_makes_room_for_them() -> None:
    with pytest.raises(ConfigError, match=r"plan\.patch_size: training would need about .* but 1 GiB may be used"):
        plan_with(config=PlanConfig(memory_gib=1.0, patch_size=(128, 128, 128)))
    with pytest.raises(ConfigError, match=r"even a patch of .* in batches of 64 needs"):
        plan_with(config=PlanConfig(memory_gib=1.0, batch_size=64))
    usual, many = (plan_with(config=PlanConfig(memory_gib=1.0, batch_size=batch)) for batch in (2, 6))
    assert math.prod(many.patch_size) < math.prod(usual.patch_size)


def test_a_pin_that_would_mix_left_and_right_is_refused() -> None:
    sided = make_cases(CASES.cases, structures=["kidney_left", "kidney_right"])
    with pytest.raises(ConfigError, match=r"plan\.mirror_axes: 0 flips left and right, so kidney_left, kidney_right"):
        plan_with(cases=sided, config=PlanConfig(mirror_axes=(0, 1)))
    assert plan_with(cases=sided, config=PlanConfig(mirror_axes=(1,))).mirror_axes == (1,)


def test_a_crop_is_counted_in_patch_and_store() -> None:
    """Files of 100³ voxels stored as S, R, A, of which 60 × 20 × 30 are not background: 20 × 30 × 60 along R, A, S."""
    whole = [make_case(i, (100, 100, 100), (1.0, 1.0, 1.0), axes=(2, 0, 1)) for i in range(20)]
    cases = make_cases([case.model_copy(update={"nonzero_shape": (60, 20, 30)}) for case in whole])
    plan = plan_with(cases=cases, config=PlanConfig(crop="nonzero"))
    assert all(n <= size < n + 16 for size, n in zip(plan.patch_size, (20, 30, 60), strict=True))
    assert plan.predicted["store_gib"] == pytest.approx(20 * 20 * 30 * 60 * 5 / 2**30, rel=0.01)
    assert planned_shape(cases.cases[0], plan) == (20, 30, 60)
    assert planned_shape(cases.cases[0], plan_with(cases=cases, config=PlanConfig(crop="none"))) == (100, 100, 100)


def test_weights_of_many_classes_are_summed_up_where_a_person_reads():
    many = plan_with().model_copy(update={"class_weights": (0.5, *range(1, 118))})
    assert {key: value for key, value, _ in plan_rows(many)}["class_weights"] == "118 values from 0.5 to 117"


def test_every_printed_value_has_a_reason() -> None:
    for key, value, reason in plan_rows(plan_with()):
        assert value and reason, key


def test_a_step_is_measured_on_this_machine_and_leaves_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    work = StepSpec({"name": "unet", "channels": [4, 8, 8]}, 1, 3, (16, 16, 16), 1)
    began = time.perf_counter()
    times = seconds_per_step(work, ["fp32", "bf16"], CPU, num_threads=1)
    passed = time.perf_counter() - began
    assert set(times) == {"fp32", "bf16"} and all(0 < seconds < passed for seconds in times.values())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("channels", "overlapping"), [(300, False), (20, True)])
def test_a_step_can_be_taken_with_more_structures_than_a_byte_has_values(channels: int, overlapping: bool) -> None:
    network = {"name": "unet", "channels": [2, 2, 2], "deep_supervision": 1}
    step = TimedStep(StepSpec(network, 1, channels, (8, 4, 4), 1, overlapping), "fp32", CPU)
    step()
    assert step.label.dtype == (torch.int64 if overlapping else torch.int32)  # 20 bits, or 300 indices
    assert all(torch.isfinite(parameter).all() for parameter in step.network.parameters())


def test_a_gpu_is_measured_as_it_trains_and_given_back() -> None:
    """It chooses its convolutions by trying them, and its memory is let go, also after a fault."""
    given_back, before = [], torch.backends.cudnn.benchmark
    with pytest.raises(RuntimeError), gpu_as_in_training(torch.device("cuda"), lambda: given_back.append(True)):
        assert torch.backends.cudnn.benchmark
        raise RuntimeError
    assert given_back == [True] and torch.backends.cudnn.benchmark == before
    with gpu_as_in_training(CPU, lambda: given_back.append(True)):
        assert not torch.backends.cudnn.benchmark
    assert given_back == [True] and torch.backends.cudnn.benchmark == before


def test_settings_of_the_measurement_end_with_it() -> None:
    """A CPU has no convolutions to try, whatever the caller has set for a GPU."""
    seen, work = [], StepSpec({}, 1, 2, (8, 8, 8), 1)
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        note = lambda *_: lambda: seen.append(torch.backends.cudnn.benchmark)  # noqa: E731
        assert set(seconds_per_step(work, ["fp32"], CPU, torch.get_num_threads(), note)) == {"fp32"}
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before
    assert seen and not any(seen)


def test_a_gpu_is_waited_for_once_in_several_steps() -> None:
    """Precisions take turns: two rounds of five steps of each, 0.1 s and 0.2 s long."""
    now, taken = [0.0], []

    def step(name: str, seconds: float) -> Callable[[], None]:
        def take() -> None:
            now[0] += seconds
            taken.append(name)

        return take

    steps: dict[Precision, Callable[[], None]] = {"fp32": step("fp32", 0.2), "bf16": step("bf16", 0.1)}
    times = time_interleaved(steps, 2, 60.0, CPU, unwatched=5, clock=lambda: now[0])
    assert taken == 2 * (5 * ["fp32"] + 5 * ["bf16"])
    assert times == {"fp32": pytest.approx([0.2, 0.2]), "bf16": pytest.approx([0.1, 0.1])}


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 2), (1.0, 4), (100.0, 7)])
def test_slow_steps_are_measured_in_fewer_rounds_and_twice_at_least(seconds: float, rounds: int) -> None:
    """Steps of a quarter second, at most seven."""
    now = [0.0]

    def take() -> None:
        now[0] += 0.25

    assert len(time_interleaved({"fp32": take}, 7, seconds, CPU, clock=lambda: now[0])["fp32"]) == rounds
