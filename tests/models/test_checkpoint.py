"""Weights and states on disk: whole, equal, refused where damaged; what fits of pretrained weights is named."""

from __future__ import annotations

import pickle

import pytest
import torch

from pipeline.base.errors import DataError
from pipeline.models.checkpoint import load_weights, save_weights
from pipeline.models.load_pretrained_weights import load_matching_weights
from pipeline.models.networks.build_network import build_network
from pipeline.training.save_and_resume import load_state, save_state

SMALL = {"name": "unet", "channels": (4, 8, 8)}


def test_weights_come_back_and_equal_weights_are_equal_bytes(tmp_path):
    weights = build_network(SMALL, 1, 2).state_dict()
    save_weights(tmp_path / "a.safetensors", weights)
    save_weights(tmp_path / "b.safetensors", dict(reversed(weights.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    for name, tensor in load_weights(tmp_path / "a.safetensors").items():
        assert torch.equal(tensor, weights[name])


def test_missing_and_truncated_weights_are_named(tmp_path):
    with pytest.raises(DataError, match="there is no such weights file"):
        load_weights(tmp_path / "none.safetensors")
    save_weights(tmp_path / "whole.safetensors", {"a": torch.zeros(100)})
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:200])
    with pytest.raises(DataError, match=r"half\.safetensors: not a whole safetensors file"):
        load_weights(tmp_path / "half.safetensors")


def test_states_come_back(tmp_path):
    state = {"step": 3, "nested": {"losses": [0.5, 0.25]}, "weights": torch.arange(4.0), "name": None}
    save_state(tmp_path / "state.pt", state)
    found = load_state(tmp_path / "state.pt", torch.device("cpu"))
    assert torch.equal(found.pop("weights"), state.pop("weights")) and found == state


class _Harm:
    def __reduce__(self):
        return (print, ("code was executed",))


def test_a_state_with_code_in_it_is_refused(tmp_path, capsys):
    torch.save({"step": _Harm()}, tmp_path / "state.pt")
    with pytest.raises(DataError, match="cannot be read"):
        load_state(tmp_path / "state.pt", torch.device("cpu"))
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Harm()))
    with pytest.raises(DataError, match="cannot be read"):
        load_state(tmp_path / "plain.pt", torch.device("cpu"))
    assert "executed" not in capsys.readouterr().out


def test_fine_tuning_takes_over_what_fits_and_accounts_for_the_rest():
    """Another number of classes: everything but the output layers is taken over."""
    pretrained, network = build_network(SMALL, 1, 2), build_network(SMALL, 1, 5)
    account = load_matching_weights(network, {**pretrained.state_dict(), "other.weight": torch.zeros(1)})
    assert set(account.other_shape) == {n for n in network.state_dict() if "output_block" in n or "supervision" in n}
    assert account.unused == ("other.weight",) and account.missing == ()
    for name in account.matched:
        assert torch.equal(network.state_dict()[name], pretrained.state_dict()[name])
    assert "of another shape, begun anew: " in str(account) and "output_block.conv.conv.weight" in str(account)


def test_weights_of_another_network_are_refused():
    with pytest.raises(DataError, match="none of the pretrained weights fits"):
        load_matching_weights(build_network(SMALL, 1, 2), {"encoder.weight": torch.zeros(3)})
