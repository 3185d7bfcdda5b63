"""Laws of the loop: stopping anywhere and going on equals never having stopped; NaN and lack of memory are survived."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.base.errors import ConfigError, TrainingError
from pipeline.base.terminal import progress
from pipeline.config.train import EarlyStoppingConfig
from pipeline.models.checkpoint import load_weights
from pipeline.training.fold_run import RESULT
from pipeline.training.loggers import train_logger
from pipeline.training.prefetch import Batch, prefetch
from pipeline.training.save_and_resume import TrainState, load_train_state, save_train_state, seconds_between_saves
from pipeline.training.trainer import fit
from pipeline.training.validation_schedule import ValidationPlan
from tests.training.tiny_training import draw, make_fold_run, make_train_step, score

OUTPUTS = ("last.safetensors", "best.safetensors", "metrics.csv", "result.json")


class _Killed(BaseException):
    """Stands for kill -9: nothing may catch it and tidy up."""


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def _killed_at(step: int):
    def draw_until(now: int) -> Batch:
        if now == step:
            raise _Killed
        return draw(now)

    return draw_until


def test_it_learns_and_leaves_its_files(tmp_path):
    result = fit(make_fold_run(tmp_path, max_steps=40), make_train_step())
    assert result["dice"]["box"] > 0.8
    assert result["steps"] == 40
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*OUTPUTS, "timing.csv"])


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("killed_at", [1, 5, 9])
@pytest.mark.parametrize("data_threads", [1, 3])
def test_killed_and_resumed_equals_never_stopped_bit_by_bit(tmp_path, killed_at, dropout, data_threads, caplog):
    """However many threads drew its batches, before and after."""
    fit(make_fold_run(tmp_path / "whole"), make_train_step(dropout=dropout))
    interrupted = make_fold_run(tmp_path / "resumed", save_every=0.0, data_threads=data_threads)
    with pytest.raises(_Killed):
        fit(replace(interrupted, draw=_killed_at(killed_at)), make_train_step(dropout=dropout))
    with caplog.at_level("INFO"):
        fit(interrupted, make_train_step(dropout=dropout))
    assert f"resumed at step {killed_at}" in caplog.text
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "resumed")


def test_rows_after_the_saved_step_are_cut_off(tmp_path):
    """The last save is at the validation of step 5; steps 6 to 8 are lost with their rows and come again."""
    fit(make_fold_run(tmp_path / "whole"), make_train_step())
    fold_run = make_fold_run(tmp_path / "resumed")
    with pytest.raises(_Killed):
        fit(replace(fold_run, draw=_killed_at(8)), make_train_step())
    assert (tmp_path / "resumed/metrics.csv").read_text(encoding="utf-8").count("\n") == 1 + 8
    fit(fold_run, make_train_step())
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "resumed")


def _scored_at(kill):
    """A validation that is killed (or stopped) at its second call, before its only case."""
    calls = []

    def scored(weights, sw_batch_size, before_each):
        calls.append(1)
        if len(calls) == 2:
            kill()
        return score(weights, sw_batch_size, before_each)

    return scored


def _kill():
    raise _Killed


def _ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("kill", "raised"), [(_kill, _Killed), (_ask_to_stop, KeyboardInterrupt)])
@pytest.mark.parametrize("steps", [12, 10])
def test_what_is_killed_in_a_validation_goes_on_with_it(tmp_path, caplog, kill, raised, steps):
    """The second validation is at step 10, which may be the last; its row and its best are those of a whole run."""
    fit(make_fold_run(tmp_path / "whole", max_steps=steps), make_train_step())
    fold_run = make_fold_run(tmp_path / "resumed", max_steps=steps, most_unsaved=0.0)
    with pytest.raises(raised):
        fit(replace(fold_run, validate=_scored_at(kill)), make_train_step())
    with caplog.at_level("INFO"):
        fit(fold_run, make_train_step())
    assert "resumed at step 10" in caplog.text
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "resumed")


def test_a_row_that_was_written_before_its_validation_was_saved_comes_once(tmp_path):
    """Killed between the row of step 10 and the save behind it: the state is that from before the validation."""
    fit(make_fold_run(tmp_path / "whole"), make_train_step())
    fold_run = make_fold_run(tmp_path / "resumed", most_unsaved=0.0)
    train_step = make_train_step()
    state, rows = train_step.state, tmp_path / "resumed/metrics.csv"

    def state_before_the_row():
        if rows.is_file() and rows.read_text(encoding="utf-8").count("\n") == 1 + 10:
            raise _Killed
        return state()

    train_step.state = state_before_the_row
    with pytest.raises(_Killed):
        fit(fold_run, train_step)
    assert rows.read_text(encoding="utf-8").count("\n") == 1 + 10
    assert load_train_state(tmp_path / "resumed", make_train_step()).validation_due
    fit(fold_run, make_train_step())
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "resumed")


def test_slow_saves_are_made_less_often_and_once_a_minute_all_the_same():
    assert seconds_between_saves(30.0, 0.1) == 30.0 and seconds_between_saves(0.0, 0.1) == 0.0
    assert [seconds_between_saves(30.0, took) for took in (1.0, 2.0, 3.0, 100.0)] == [30.0, 40.0, 60.0, 60.0]
    assert seconds_between_saves(300.0, 10.0) == 300.0


def test_another_number_of_processes_is_refused(tmp_path):
    """Their batches would be others than those that the first steps were taken with."""
    fold_run = make_fold_run(tmp_path)
    save_train_state(tmp_path, TrainState(step=3, processes=2), make_train_step())
    said = r"fold 0 was begun with 2 processes and cannot go on with 1 process: .* Start it with 2 processes .*--force"
    with pytest.raises(ConfigError, match=said):
        fit(fold_run, make_train_step())


def test_time_accumulates_over_resumes(tmp_path):
    fold_run = make_fold_run(tmp_path, save_every=0.0)
    with pytest.raises(_Killed):
        fit(replace(fold_run, draw=_killed_at(6)), make_train_step())
    fit(fold_run, make_train_step())
    seconds = [
        float(line.split(",")[1]) for line in (tmp_path / "timing.csv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert len(seconds) == 12 and seconds == sorted(seconds)


def _with_nan(steps: set[int], seen: list[int] | None = None):
    """A draw that hands out one batch of NaNs at each of the steps, once (or always, without `seen`)."""

    def draw_nan(step: int) -> Batch:
        batch = draw(step)
        if step in steps and (seen is None or step not in seen):
            if seen is not None:
                seen.append(step)
            return Batch(batch.image * float("nan"), batch.label)
        return batch

    return draw_nan


def test_a_nan_loss_rolls_back_once_with_a_lower_rate(tmp_path, caplog):
    fold_run = make_fold_run(tmp_path, draw=_with_nan({7}, []))
    with caplog.at_level("WARNING"):
        result = fit(fold_run, make_train_step())
    assert "rolled back to step 5, goes on with 0.5 of the learning rate" in caplog.text
    assert result["rolled_back_at"] == 8
    assert result["steps"] == 12
    assert all(torch.isfinite(tensor).all() for tensor in load_weights(tmp_path / "last.safetensors").values())


def test_rolling_back_gives_no_time_back(tmp_path):
    """A second a batch: of twelve steps, and of steps 6 to 8, which are taken twice."""
    drawn, with_nan = [], _with_nan({7}, [])

    def timed(step):
        drawn.append(step)
        return with_nan(step)

    fold_run = make_fold_run(tmp_path, draw=timed, clock=lambda: float(len(drawn)))
    assert fit(fold_run, make_train_step())["rolled_back_at"] == 8
    rows = (tmp_path / "timing.csv").read_text(encoding="utf-8").splitlines()
    assert 12 + 3 <= float(rows[-1].split(",")[1]) <= len(drawn)


def test_a_nan_loss_that_stays_ends_with_a_reason_and_the_last_good_weights(tmp_path):
    with pytest.raises(TrainingError, match="the loss is not a finite number again at step 8"):
        fit(make_fold_run(tmp_path, draw=_with_nan({7})), make_train_step())
    assert all(torch.isfinite(tensor).all() for tensor in load_weights(tmp_path / "last.safetensors").values())


class _NeedsMemory(nn.Module):
    """Refuses more than `most` samples at once, as a full GPU does."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, image: torch.Tensor):
        if image.shape[0] > self.most:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return self.network(image)


def test_out_of_memory_goes_on_with_fewer_patches_at_once_to_the_same_weights(caplog):
    whole, portions = make_train_step(micro_batch=4), make_train_step(micro_batch=4)
    portions.forward = _NeedsMemory(portions.network, most=1)
    for step in range(3):
        whole.step(draw(step, batch_size=4), step, 0.05)
        portions.step(draw(step, batch_size=4), step, 0.05)
    assert portions.micro_batch == 1
    assert "goes on with 2 patches at a time" in caplog.text and "same up to rounding" in caplog.text
    for one, other in zip(whole.network.parameters(), portions.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # a step is 0.05


def test_a_single_patch_that_does_not_fit_is_a_sentence():
    train_step = make_train_step()
    train_step.forward = _NeedsMemory(train_step.network, most=0)
    with pytest.raises(TrainingError, match="not enough memory for a single patch"):
        train_step.step(draw(0), 0, 0.05)


def test_after_a_want_of_memory_validation_takes_fewer_windows_at_once_too(tmp_path):
    train_step, seen = make_train_step(), []
    train_step.forward = _NeedsMemory(train_step.network, most=1)

    def noted(weights, sw_batch_size, before_each):
        seen.append(sw_batch_size)
        return {"box": 0.5}

    fit(make_fold_run(tmp_path, max_steps=2, validate=noted), train_step)
    assert seen == [1]


def _no_memory(*_):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize(("part", "what"), [("draw", "drawing a batch"), ("validate", "a validation")])
def test_a_want_of_memory_elsewhere_is_a_sentence(tmp_path, part, what):
    with pytest.raises(TrainingError, match=rf"fold 0: not enough memory for {what} .* use a smaller plan\.patch_size"):
        fit(make_fold_run(tmp_path, **{part: _no_memory}), make_train_step())


def test_with_batch_norm_it_says_that_portions_are_not_the_same(caplog):
    train_step = make_train_step(norm="batch")
    train_step.forward = _NeedsMemory(train_step.network, most=1)
    train_step.step(draw(0), 0, 0.05)
    assert "the result differs a little" in caplog.text


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_other_precisions_learn_too(tmp_path, precision):
    result = fit(make_fold_run(tmp_path, max_steps=40), make_train_step(precision=precision))
    assert result["dice"]["box"] > 0.7


def test_early_stopping_stops(tmp_path):
    fold_run = make_fold_run(
        tmp_path, max_steps=60, validate=lambda *_: {"box": 0.5}, early_stopping=EarlyStoppingConfig(patience=2)
    )
    assert fit(fold_run, make_train_step())["steps"] == 15


def test_small_gains_add_up_to_one_that_counts(tmp_path):
    """0.0006 more at each of 12 validations: by 0.001 at every second one, and patience is two."""
    means = iter(0.5 + 0.0006 * number for number in range(12))
    stopping = EarlyStoppingConfig(patience=2, min_delta=0.001)
    fold_run = make_fold_run(
        tmp_path,
        validate=lambda *_: {"box": next(means)},
        validation=ValidationPlan(interval=1, cases=("case",)),
        early_stopping=stopping,
    )
    assert fit(fold_run, make_train_step())["steps"] == 12


def test_without_a_terminal_a_line_is_said_now_and_then(tmp_path, monkeypatch, caplog):
    """With nothing to validate too; where somebody sees a progress bar, it is enough."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        caplog.clear()
        folder, nothing = tmp_path / type(stream).__name__, ValidationPlan(2, cases=())
        fold_run = make_fold_run(folder, max_steps=2, validation=nothing, log_every=0.0)
        with caplog.at_level("INFO"):
            fit(fold_run, make_train_step())
        said = [f"step {step}/2  loss" in caplog.text for step in (1, 2)]
        assert said == [not stream.isatty()] * 2 and "()" not in caplog.text


def test_one_process_of_several_draws_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for shown in (True, False):
        monkeypatch.setattr("sys.stderr", Terminal())
        with progress("fold 0", 3, shown=shown) as bar:
            bar.advance()
        assert ("fold 0" in sys.stderr.getvalue()) == shown


@pytest.mark.parametrize("threads", [1, 3, 20])
def test_drawing_ahead_keeps_the_order_and_passes_errors_on(threads):
    of_network = torch.get_num_threads()
    with prefetch(draw, 3, 9, threads) as batches:
        assert torch.get_num_threads() == of_network
        for step, batch in zip(range(3, 9), batches, strict=True):
            assert torch.equal(batch.image, draw(step).image)
    with prefetch(lambda step: torch.get_num_threads(), 0, 6, threads) as batches:
        assert set(batches) == {1}  # more would wait for the network's, and the network's for them
    taken = []
    with pytest.raises(_Killed), prefetch(_killed_at(4), 3, 9, threads) as batches:
        taken.extend(batches)
    assert len(taken) == 1
    with prefetch(draw, 9, 9, threads) as batches:
        assert list(batches) == []


def test_threads_end_however_soon_they_are_left():
    for _ in range(100):
        with prefetch(lambda step: step, 0, 6, threads=6) as batches:
            assert next(batches) == 0


def test_threads_that_cannot_start_are_no_deadlock(monkeypatch):
    started = threading.Thread.start
    seen = []

    def start(thread):
        seen.append(thread)
        if len(seen) == 3:
            raise RuntimeError("can't start new thread")
        started(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"), prefetch(draw, 0, 20, threads=4):
        pass


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_last_look_is_not_lost(signum, tmp_path, monkeypatch, caplog):
    """It comes with the line after the last step, which follows that of the last validation."""

    class Asking(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())
            if sum("step 12/12" in line for line in said) == 2:
                signal.raise_signal(signum)

    said, asking = [], Asking()
    monkeypatch.setattr("sys.stderr", io.StringIO())  # no terminal
    caplog.set_level("INFO")
    train_logger.log.addHandler(asking)
    try:
        fold_run = make_fold_run(tmp_path / "stopped", log_every=0.0)
        with pytest.raises(KeyboardInterrupt):
            fit(fold_run, make_train_step())
    finally:
        train_logger.log.removeHandler(asking)
    assert "step 12/12" in said[-1]
    fit(fold_run, make_train_step())
    fit(make_fold_run(tmp_path / "whole"), make_train_step())
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "stopped")


def test_a_signal_in_a_step_that_is_rolled_back_is_not_lost(tmp_path):
    """The step whose loss is no number is when it comes: the rolled back training begins, and stops at once."""

    def rate(step):
        if step == 6 and not asked:
            asked.append(step)
            signal.raise_signal(signal.SIGTERM)
        return 0.01

    asked = []
    fold_run = make_fold_run(tmp_path / "fold", rate=rate, draw=_with_nan({6}, []), save_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(fold_run, make_train_step())
    assert asked == [6]
    assert fit(fold_run, make_train_step())["steps"] == fold_run.max_steps


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_time_costs_nothing_but_the_time(tmp_path, signum):
    """A process is stopped in the middle of training; going on gives the bytes of an undisturbed run."""
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        from pipeline.training.trainer import fit
        from tests.training.tiny_training import draw, make_fold_run, make_train_step
        def waiting(step):
            if step == 7:  # the training cannot end before it was sent the signal
                print("drawing", flush=True)
                sys.stdin.read()
            return draw(step)
        folder = Path({str(tmp_path / "stopped")!r})
        fit(make_fold_run(folder, draw=waiting, save_every=0.0, data_threads=2), make_train_step())
        """
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, text=True, **pipes) as process:
        assert process.stdout.readline() == "drawing\n"
        os.kill(process.pid, signum)
        process.stdin.close()
        process.stdout.read()
    assert process.returncode != 0
    assert not (tmp_path / "stopped" / RESULT).exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(make_fold_run(tmp_path / "stopped"), make_train_step())
        fit(make_fold_run(tmp_path / "whole"), make_train_step())
    finally:
        torch.set_num_threads(threads)
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "stopped")
