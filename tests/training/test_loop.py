"""Laws of the loop: stopping anywhere and going on equals never having stopped; NaN and lack of memory are survived."""

from __future__ import annotations

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

from pipeline.base.errors import TrainingError
from pipeline.models.checkpoint import load_weights
from pipeline.training.batches import Batch, drawn_ahead
from pipeline.training.loop import fit
from tests.training.small import draw, make_course, make_learner

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
    result = fit(make_course(tmp_path, max_steps=40), make_learner())
    assert result["dice"]["box"] > 0.8
    assert result["steps"] == 40
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*OUTPUTS, "timing.csv"])


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("killed_at", [1, 5, 9])
@pytest.mark.parametrize("data_threads", [1, 3])
def test_killed_and_resumed_equals_never_stopped_bit_by_bit(tmp_path, killed_at, dropout, data_threads, caplog):
    """However many threads drew its batches, before and after."""
    fit(make_course(tmp_path / "whole"), make_learner(dropout=dropout))
    interrupted = make_course(tmp_path / "resumed", save_every=0.0, data_threads=data_threads)
    with pytest.raises(_Killed):
        fit(replace(interrupted, draw=_killed_at(killed_at)), make_learner(dropout=dropout))
    with caplog.at_level("INFO"):
        fit(interrupted, make_learner(dropout=dropout))
    assert f"resumed at step {killed_at}" in caplog.text
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "resumed")


def test_rows_after_the_saved_step_are_cut_off(tmp_path):
    """The last save is at the validation of step 5; steps 6 to 8 are lost with their rows and come again."""
    fit(make_course(tmp_path / "whole"), make_learner())
    course = make_course(tmp_path / "resumed")
    with pytest.raises(_Killed):
        fit(replace(course, draw=_killed_at(8)), make_learner())
    assert (tmp_path / "resumed/metrics.csv").read_text(encoding="utf-8").count("\n") == 1 + 8
    fit(course, make_learner())
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "resumed")


def test_time_accumulates_over_resumes(tmp_path):
    course = make_course(tmp_path, save_every=0.0)
    with pytest.raises(_Killed):
        fit(replace(course, draw=_killed_at(6)), make_learner())
    fit(course, make_learner())
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
    course = make_course(tmp_path, draw=_with_nan({7}, []))
    with caplog.at_level("WARNING"):
        result = fit(course, make_learner())
    assert "rolled back to step 5, goes on with 0.5 of the learning rate" in caplog.text
    assert result["rolled_back_at"] == 8
    assert result["steps"] == 12
    assert all(torch.isfinite(tensor).all() for tensor in load_weights(tmp_path / "last.safetensors").values())


def test_a_nan_loss_that_stays_ends_with_a_reason_and_the_last_good_weights(tmp_path):
    with pytest.raises(TrainingError, match="the loss is not a finite number again at step 8"):
        fit(make_course(tmp_path, draw=_with_nan({7})), make_learner())
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
    whole, portions = make_learner(micro_batch=4), make_learner(micro_batch=4)
    portions.forward = _NeedsMemory(portions.network, most=1)
    for step in range(3):
        whole.learn(draw(step, batch_size=4), step, 0.05)
        portions.learn(draw(step, batch_size=4), step, 0.05)
    assert portions.micro_batch == 1
    assert "goes on with 2 patches at a time" in caplog.text and "same up to rounding" in caplog.text
    for one, other in zip(whole.network.parameters(), portions.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # a step is 0.05


def test_a_single_patch_that_does_not_fit_is_a_sentence():
    learner = make_learner()
    learner.forward = _NeedsMemory(learner.network, most=0)
    with pytest.raises(TrainingError, match="not enough memory for a single patch"):
        learner.learn(draw(0), 0, 0.05)


def test_with_batch_norm_it_says_that_portions_are_not_the_same(caplog):
    learner = make_learner(norm="batch")
    learner.forward = _NeedsMemory(learner.network, most=1)
    learner.learn(draw(0), 0, 0.05)
    assert "the result differs a little" in caplog.text


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_learn_too(tmp_path, precision):
    result = fit(make_course(tmp_path, max_steps=40), make_learner(precision=precision))
    assert result["dice"]["box"] > 0.7


def test_early_stopping_stops(tmp_path):
    from pipeline.training.settings import EarlyStoppingConfig

    course = make_course(
        tmp_path, max_steps=60, validate=lambda weights: {"box": 0.5}, early_stopping=EarlyStoppingConfig(patience=2)
    )
    assert fit(course, make_learner())["steps"] == 15


@pytest.mark.parametrize("threads", [1, 3, 20])
def test_drawing_ahead_keeps_the_order_and_passes_errors_on(threads):
    of_network = torch.get_num_threads()
    with drawn_ahead(draw, 3, 9, threads) as batches:
        assert torch.get_num_threads() == of_network
        for step, batch in zip(range(3, 9), batches, strict=True):
            assert torch.equal(batch.image, draw(step).image)
    with drawn_ahead(lambda step: torch.get_num_threads(), 0, 6, threads) as batches:
        assert set(batches) == {1}  # more would wait for the network's, and the network's for them
    taken = []
    with pytest.raises(_Killed), drawn_ahead(_killed_at(4), 3, 9, threads) as batches:
        taken.extend(batches)
    assert len(taken) == 1
    with drawn_ahead(draw, 9, 9, threads) as batches:
        assert list(batches) == []


def test_threads_end_however_soon_they_are_left():
    for _ in range(100):
        with drawn_ahead(lambda step: step, 0, 6, threads=6) as batches:
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
    with pytest.raises(RuntimeError, match="can't start"), drawn_ahead(draw, 0, 20, threads=4):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_time_costs_nothing_but_the_time(tmp_path, signum):
    """A process is stopped in the middle of training; going on gives the bytes of an undisturbed run."""
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        from pipeline.training.loop import fit
        from tests.training.small import draw, make_course, make_learner
        def slowly(step):
            time.sleep(0.05)
            print(step, flush=True)
            return draw(step)
        folder = Path({str(tmp_path / "stopped")!r})
        fit(make_course(folder, draw=slowly, save_every=0.0, data_threads=2), make_learner())
        """
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root, text=True) as process:
        for line in process.stdout:
            if line.strip() == "7":
                os.kill(process.pid, signum)
                break
        process.stdout.read()
    assert process.returncode != 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(make_course(tmp_path / "stopped"), make_learner())
        fit(make_course(tmp_path / "whole"), make_learner())
    finally:
        torch.set_num_threads(threads)
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "stopped")
