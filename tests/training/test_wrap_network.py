"""Compiling is an attempt: training goes on without it where it does not work."""

from __future__ import annotations

import pytest
import torch

from pipeline.training.wrap_network import compile_or_fallback
from tests.training.tiny_training import draw, make_train_step


@pytest.mark.slow
def test_where_there_is_no_compiler_it_learns_without_and_says_so(monkeypatch, caplog):
    """The same weights as of a network that nobody tried to compile."""
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nowhere/g++",))
    plain, tried = make_train_step(), make_train_step()
    tried.forward = compile_or_fallback(tried.network)
    for step in range(2):
        plain.step(draw(step), step, 0.05)
        tried.step(draw(step), step, 0.05)
    assert "torch.compile does not work here, goes on without" in caplog.text
    for one, other in zip(plain.network.parameters(), tried.network.parameters(), strict=True):
        torch.testing.assert_close(one, other)
