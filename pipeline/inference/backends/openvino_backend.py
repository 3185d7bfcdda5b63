"""Networks as OpenVINO models (`.xml` with `.bin` beside it), run on numpy arrays: no torch, no MONAI."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import missing_extra
from pipeline.base.machine import usable_cores
from pipeline.inference.arrays.numpy_arrays import NumpyArrays
from pipeline.inference.backends.exported_networks import require_exports
from pipeline.inference.predictor_spec import PredictorSpec


class OpenVinoModel:
    """The networks of an ensemble as one function of windows; logits are averaged, over mirrored views too."""

    disagreement = False

    def __init__(
        self, paths: Sequence[Path], mirror_axes: Sequence[int] = (), threads: int | None = None, bf16: bool = False
    ) -> None:
        """bf16: computes in it where the processor can. Raises ConfigError where OpenVINO is not installed."""
        try:
            import openvino
        except ImportError:
            raise missing_extra("openvino", "openvino", "running an OpenVINO export") from None
        core = openvino.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        }
        self.networks = [core.compile_model(core.read_model(path), "CPU", options) for path in paths]
        sizes = range(len(mirror_axes) + 1)
        self.views = [axes for size in sizes for axes in itertools.combinations(mirror_axes, size)]
        self.arrays = NumpyArrays()
        self.backend = f"openvino, cpu, {'bf16' if bf16 else 'fp32'}"

    def inference_context(self) -> AbstractContextManager[None]:
        """Nothing is needed around the work with it."""
        return nullcontext()

    def __call__(self, windows: NDArray) -> NDArray[np.float32]:
        """Windows (N, C, *roi) fp32 to mean logits (N, K, *roi) fp32."""
        total: NDArray[np.float32] | None = None
        for network, axes in itertools.product(self.networks, self.views):
            spatial = tuple(axis + 2 for axis in axes)
            view = np.ascontiguousarray(np.flip(windows, spatial))
            logits = np.flip(network([view])[0], spatial)  # results are copies, so that the next call spares them
            total = logits if total is None else np.add(total, logits, out=total)
        if total is None:
            raise AssertionError("a model has at least one network")
        total /= np.float32(len(self.networks) * len(self.views))
        return total


def open_openvino_models(spec: PredictorSpec) -> dict[str, OpenVinoModel]:
    """Return the exported networks of every model, in bf16 unless fp32 is planned or asked for."""
    precision = spec.plan.precision if spec.settings.precision == "plan" else spec.settings.precision
    exports = require_exports(spec, "openvino")
    return {name: OpenVinoModel(paths, spec.mirror_axes, bf16=precision != "fp32") for name, paths in exports.items()}
