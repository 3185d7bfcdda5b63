"""Networks as ONNX files, run by ONNX Runtime on numpy arrays: no torch, no MONAI."""

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


class OnnxModel:
    """The networks of an ensemble as one function of windows; logits are averaged, over mirrored views too."""

    disagreement = False
    backend = "onnx, cpu, fp32"

    def __init__(self, paths: Sequence[Path], mirror_axes: Sequence[int] = (), threads: int | None = None) -> None:
        """Raises ConfigError where ONNX Runtime is not installed."""
        try:
            import onnxruntime
        except ImportError:
            raise missing_extra("onnxruntime", "onnx", "running an ONNX export") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        self.sessions = [
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]) for path in paths
        ]
        sizes = range(len(mirror_axes) + 1)
        self.views = [axes for size in sizes for axes in itertools.combinations(mirror_axes, size)]
        self.arrays = NumpyArrays()

    def inference_context(self) -> AbstractContextManager[None]:
        """Nothing is needed around the work with it."""
        return nullcontext()

    def __call__(self, windows: NDArray) -> NDArray[np.float32]:
        """Windows (N, C, *roi) fp32 to mean logits (N, K, *roi) fp32."""
        total: NDArray[np.float32] | None = None
        for session, axes in itertools.product(self.sessions, self.views):
            spatial = tuple(axis + 2 for axis in axes)
            view = np.ascontiguousarray(np.flip(windows, spatial))
            (logits,) = session.run(None, {session.get_inputs()[0].name: view})
            logits = np.flip(logits, spatial)
            total = logits if total is None else np.add(total, logits, out=total)
        if total is None:
            raise AssertionError("a model has at least one network")
        total /= np.float32(len(self.sessions) * len(self.views))
        return total


def open_onnx_models(spec: PredictorSpec) -> dict[str, OnnxModel]:
    """Return the exported networks of every model; a DataError if an export is missing."""
    return {name: OnnxModel(paths, spec.mirror_axes) for name, paths in require_exports(spec, "onnx").items()}
