"""A package's networks in other forms, each checked on a real case against torch before it is kept."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from pipeline.base.errors import SegpipeError, missing_extra
from pipeline.base.files import write_json
from pipeline.config.package import ExportKind
from pipeline.dataset.loaded_cases import Cases, manifest_image_paths, recorded_data_root
from pipeline.inference.backends.onnx_backend import OnnxModel
from pipeline.inference.backends.openvino_backend import OpenVinoModel
from pipeline.inference.backends.torch_backend import TorchModel
from pipeline.inference.predictor import Predictor
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.inference.window_model import WindowModel
from pipeline.io.read_image import read_image
from pipeline.io.volume import Volume
from pipeline.models.checkpoint import load_weights
from pipeline.models.networks.build_network import build_network
from pipeline.preprocessing.plan import Plan

log = logging.getLogger(__name__)

Kind = Literal["onnx", "torchscript", "openvino"]
Writer = Callable[[nn.Module, torch.Tensor, Path], None]
"""Puts a network into a file, for windows like the example."""
SHARE_OF_EQUAL_VOXELS = 0.9999
_ENDINGS: dict[Kind, str] = {"onnx": ".onnx", "torchscript": ".ts", "openvino": ".xml"}
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Exported:
    """An ensemble in another form.

    files: one per network, named as its weights are (OpenVINO's have their weights beside them, in `.bin`). share: of
    the checked case's voxels, those that get the label that torch gives them.
    """

    kind: Kind
    files: tuple[Path, ...]
    share: float


def export(
    kind: Kind,
    plan: Plan,
    weights: Sequence[Path],
    image: Volume,
    out: Path,
    settings: PredictorConfig,
    write: Writer | None = None,
) -> Exported:
    """Writes each network of an ensemble into `out` as `kind`, for windows as `settings` has them.

    `image` is a real case (C, X, Y, Z): with the exported ensemble at least 99.99 % of its voxels must get the label
    that they get with torch in fp32, else nothing is written and a SegpipeError says how many did. Raises ConfigError
    where a package is missing. write: puts a network into a file; None: as WRITERS has it.
    """
    networks = [_network(plan, path) for path in weights]
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        files = [Path(temporary) / f"{path.stem}{_ENDINGS[kind]}" for path in weights]
        example = torch.zeros(1, len(plan.channels), *settings.window(plan.patch_size))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing; what it may have missed, the check below sees
            for network, file in zip(networks, files, strict=True):
                (write or WRITERS[kind])(network, example, file)
        share = _equal_share(plan, image, settings, TorchModel(networks, _CPU), READERS[kind](files))
        if share < SHARE_OF_EQUAL_VOXELS:
            raise SegpipeError(
                f"package.exports: with {kind} only {share:.4%} of a case's voxels get the label of torch "
                f"({SHARE_OF_EQUAL_VOXELS:.2%} are needed), so it is not shipped; leave {kind} out"
            )
        out.mkdir(exist_ok=True)
        for written in sorted(Path(temporary).iterdir()):
            written.rename(out / written.name)
    return Exported(kind, tuple(out / file.name for file in files), share)


def _equal_share(plan: Plan, image: Volume, settings: PredictorConfig, one: WindowModel, other: WindowModel) -> float:
    settings = PredictorConfig(roi_size=settings.roi_size)
    first, second = (Predictor(plan, model, settings).predict(image).labels.array for model in (one, other))
    return float(np.mean(first == second))


def _network(plan: Plan, path: Path) -> nn.Module:
    network = build_network(plan.network, len(plan.channels), plan.out_channels)
    network.load_state_dict(load_weights(path))
    return network.eval()


def _write_onnx(network: nn.Module, example: torch.Tensor, path: Path) -> None:
    try:
        import onnx  # noqa: F401, the exporter needs it and says so less clearly
    except ImportError:
        raise missing_extra("onnx", "onnx", "package.exports: [onnx]") from None
    torch.onnx.export(
        network, (example,), str(path), dynamo=False, opset_version=17,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip


def _write_torchscript(network: nn.Module, example: torch.Tensor, path: Path) -> None:
    with torch.no_grad():
        torch.jit.trace(network, example, check_trace=False).save(str(path))


def _write_openvino(network: nn.Module, example: torch.Tensor, path: Path) -> None:
    """By way of ONNX: OpenVINO's converter of torch modules reports its use over the network, this reader does not."""
    try:
        import openvino
    except ImportError:
        raise missing_extra("openvino", "openvino", "package.exports: [openvino]") from None
    with tempfile.TemporaryDirectory() as temporary:
        onnx = Path(temporary) / "network.onnx"
        _write_onnx(network, example, onnx)
        # Its default rounds weights to 16 bits.
        openvino.save_model(openvino.Core().read_model(str(onnx)), str(path), compress_to_fp16=False)


WRITERS: dict[Kind, Writer] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "openvino": _write_openvino,
}
READERS: dict[Kind, Callable[[Sequence[Path]], WindowModel]] = {
    "onnx": OnnxModel,
    "torchscript": lambda files: TorchModel([torch.jit.load(str(file)) for file in files], _CPU),
    "openvino": OpenVinoModel,
}


def write_exports(
    kinds: tuple[ExportKind, ...], plan: Plan, inference: PredictorConfig, cases: Cases, load: Path, weights: list[Path]
) -> dict[str, float]:
    """Writes each kind of export into `exports/` beside the weights, checked on the first testing or training case.

    Returns, for each, the share of the case's voxels that get torch's label; `exports/checks.json` holds them too.
    """
    if not kinds:
        return {}

    case = (cases.testing() or cases.training())[0]
    image = read_image(manifest_image_paths(case, recorded_data_root(load)), plan.resample_channels)
    folder, shares = weights[0].parents[1] / "exports", dict[str, float]()
    for kind in kinds:
        exported = export(kind, plan, weights, image, folder, inference)
        shares[kind] = exported.share
        log.info(
            "package   exported as %s: %d network(s); %.4f %% of the voxels of %s get torch's label",
            kind, len(exported.files), 100 * exported.share, case.id,
        )  # fmt: skip
    write_json(folder / "checks.json", {kind: {"share_of_equal_voxels": share} for kind, share in shares.items()})
    return shares
