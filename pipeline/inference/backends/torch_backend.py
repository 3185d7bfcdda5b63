"""One answer from several networks and mirrored views, window by window: every window is cut and blended once.

Logits are averaged, as nnU-Net does it, so that an ensemble costs the memory of one network's logits. On request a
further channel says how much the networks disagree: the Jensen-Shannon divergence of their probabilities, as a share
of its largest possible value (0: all say the same; 1: each is sure of something else).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.machine import resolve_device, usable_cores
from pipeline.inference.arrays.torch_arrays import TorchArrays
from pipeline.inference.predictor_spec import PredictorSpec
from pipeline.models.checkpoint import load_weights
from pipeline.models.networks.build_network import build_network
from pipeline.preprocessing.plan import Plan

Network = Callable[[torch.Tensor], torch.Tensor]
Precision = Literal["fp32", "bf16", "fp16"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def mirror_axis_sets(axes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Every set of spatial axes to mirror along, the empty one first: 2ⁿ of them."""
    return tuple(itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(len(axes) + 1)))


class TorchModel:
    """Networks in torch as one function of windows. Every one is in evaluation mode on `device`."""

    def __init__(
        self,
        networks: Sequence[Network],
        device: torch.device,
        precision: Precision = "fp32",
        mirror_axes: Sequence[int] = (),
        overlapping: bool = False,
        disagreement: bool = False,
    ) -> None:
        self.networks = [_ready(network, device) for network in networks]
        self.device, self.precision = device, precision
        self.views = mirror_axis_sets(mirror_axes)
        self.overlapping = overlapping
        self.disagreement = disagreement and len(networks) > 1
        self.arrays = TorchArrays(device)
        self.backend = f"torch, {device.type}, {precision}"

    @contextmanager
    def inference_context(self) -> Iterator[None]:
        """Around all work with this model: no gradients are kept."""
        with torch.inference_mode():
            yield

    def __call__(self, windows: NDArray) -> torch.Tensor:
        """Windows (N, C, *roi) fp32 to mean logits (N, K, *roi) fp32, and the disagreement as channel K."""
        image = torch.from_numpy(windows).to(self.device)
        if not self.disagreement:
            return self._mean(self._logits(network, image) for network in self.networks)
        each = [self._logits(network, image) for network in self.networks]
        return torch.cat([self._mean(each), self._divergence(each)], dim=1)

    def _mean(self, each: Iterator[torch.Tensor] | Sequence[torch.Tensor]) -> torch.Tensor:
        if len(self.networks) == 1:
            return next(iter(each))
        total = torch.zeros(())
        for number, logits in enumerate(each):
            total = logits.clone() if number == 0 else total.add_(logits)
        return total.div_(len(self.networks))

    def _logits(self, network: Network, image: torch.Tensor) -> torch.Tensor:
        """One network's logits, averaged over the mirrored views."""
        total = torch.zeros(())
        for number, axes in enumerate(self.views):
            spatial = [axis + 2 for axis in axes]
            with torch.autocast(self.device.type, _TYPES.get(self.precision), enabled=self.precision != "fp32"):
                logits = network(image.flip(spatial) if spatial else image)
            logits = (logits.flip(spatial) if spatial else logits).float()
            if len(self.views) == 1:
                return logits
            total = logits.clone() if number == 0 else total.add_(logits)
        return total.div_(len(self.views))

    def _divergence(self, each: Sequence[torch.Tensor]) -> torch.Tensor:
        """Entropy of the mean minus mean of the entropies, over log of what it can reach; (N, 1, *roi)."""
        probabilities = torch.stack([logits.sigmoid() if self.overlapping else logits.softmax(1) for logits in each])
        outcomes = 2 if self.overlapping else probabilities.shape[2]
        spread = self._entropy(probabilities.mean(0)) - self._entropy(probabilities).mean(0)
        largest = spread.amax(1, keepdim=True) if self.overlapping else spread
        return largest.clamp_(min=0) / math.log(min(len(each), outcomes))

    def _entropy(self, p: torch.Tensor) -> torch.Tensor:
        if self.overlapping:
            return torch.special.entr(p) + torch.special.entr(1 - p)
        return torch.special.entr(p).sum(-4, keepdim=True)


def _ready(network: Network, device: torch.device) -> Network:
    return network.eval().to(device) if isinstance(network, torch.nn.Module) else network


def open_torch_models(spec: PredictorSpec, precision: str) -> dict[str, TorchModel]:
    """Return the networks of every model, each weight file read once, on the device and in the arithmetic asked for."""
    device = resolve_device(spec.device)
    if device.type == "cpu":  # within a container's share of time: torch counts the machine's cores
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    usable = usable_precision(precision, spec.plan, device)
    networks = {path: _network(spec.plan, path) for paths in spec.models.values() for path in paths}
    return {
        name: TorchModel(
            [networks[path] for path in paths],
            device,
            usable,
            spec.mirror_axes,
            spec.plan.overlapping,
            disagreement=spec.settings.uncertainty,
        )
        for name, paths in spec.models.items()
    }


def usable_precision(asked: str, plan: Plan, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic to use: as asked or planned; on a CPU bf16 only where it computes in it, and fp16 never."""
    precision = plan.precision if asked == "plan" else asked
    if device.type == "cpu" and precision != "fp32":
        return "bf16" if asked == "bf16" or torch.cpu._is_avx512_bf16_supported() else "fp32"
    return precision  # type: ignore[return-value]


def _network(plan: Plan, path: Path) -> torch.nn.Module:
    network = build_network(plan.network, len(plan.channels), plan.out_channels)
    weights = load_weights(path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(
            f"{path}: does not fit the network of its plan ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network
