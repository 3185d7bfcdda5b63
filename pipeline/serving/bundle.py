"""The package as a MONAI bundle too: `configs/metadata.json`, `configs/inference.json`, `models/model.pt`.

A bundle holds one network. What it cannot express (ensembles, mirroring, regions, nonzero cropping) is said in its
`docs/README.md`; `segpipe predict` does all of it. Nothing of the bundle is ever read back by segpipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pipeline.base.errors import ConfigError
from pipeline.base.files import write_json, write_text
from pipeline.data.plan import ChannelPlan, Plan
from pipeline.inference.settings import InferenceSettings
from pipeline.models.checkpoint import load_weights
from pipeline.models.network_config import UNetConfig, network_config
from pipeline.models.networks import build_network
from pipeline.serving.card import NOT_A_DEVICE, CardText

TRANSFORMS = "monai.transforms."


def write_bundle(
    folder: Path, plan: Plan, settings: InferenceSettings, weights: Sequence[Path], text: CardText
) -> None:
    """Writes the bundle's files into a package's folder. ConfigError where the plan has no form as a bundle."""
    config = network_config(plan.network)
    if not isinstance(config, UNetConfig) or plan.overlapping or any(len(v) != 1 for v in plan.structures.values()):
        raise ConfigError(
            "package.bundle: only a unet with structures of one label value each has a form as MONAI bundle; "
            "set package.bundle: false"
        )
    (folder / "models").mkdir(exist_ok=True)
    torch.save(_dynunet_state(plan, config, weights[0]), folder / "models" / "model.pt")
    write_json(folder / "configs" / "metadata.json", _metadata(plan, text))
    write_json(folder / "configs" / "inference.json", _inference(plan, config, settings))
    write_text(folder / "docs" / "README.md", _readme(plan, settings, len(weights), text))


def _dynunet_arguments(plan: Plan, config: UNetConfig) -> dict[str, Any]:
    strides = [list(stride) for stride in config.strides or ()]
    return {
        "spatial_dims": 3,
        "in_channels": len(plan.channels),
        "out_channels": plan.out_channels,
        "kernel_size": [list(kernel) for kernel in config.kernel_size or ()],
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": list(config.channels or ()),
        "norm_name": [config.norm, {"affine": True}],
        "res_block": config.residual,
    }


def _dynunet_state(plan: Plan, config: UNetConfig, weights: Path) -> dict[str, torch.Tensor]:
    """Our weights under all the names that MONAI's DynUNet gives them; the coarse heads of training stay behind."""
    from monai.networks.nets import DynUNet

    network = DynUNet(**_dynunet_arguments(plan, config)).eval()
    ours = {n: t for n, t in load_weights(weights).items() if not n.startswith("deep_supervision_heads")}
    unknown = network.load_state_dict(ours, strict=False).unexpected_keys
    reference = build_network(plan.network, len(plan.channels), plan.out_channels).eval()
    reference.load_state_dict(load_weights(weights))
    example = torch.linspace(-1, 1, len(plan.channels) * int(torch.tensor(plan.patch_size).prod()))
    example = example.reshape(1, len(plan.channels), *plan.patch_size)
    with torch.no_grad():
        if unknown or not torch.allclose(network(example), reference(example), atol=1e-4):
            raise AssertionError(f"DynUNet does not compute what our U-Net does (unknown names: {unknown})")
    return network.state_dict()


def _metadata(plan: Plan, text: CardText) -> dict[str, Any]:
    names = {"0": "background"} | {str(i): name for i, name in enumerate(plan.structures, 1)}
    patch = list(plan.patch_size)
    image = {
        "type": "image",
        "format": "hounsfield" if all(c.scheme == "ct" for c in plan.channels) else "magnitude",
        "modality": ", ".join(dict.fromkeys(channel.modality for channel in plan.channels)),
        "num_channels": len(plan.channels),
        "spatial_shape": patch,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(i): channel.name for i, channel in enumerate(plan.channels)},
    }
    pred = {
        "type": "image",
        "format": "segmentation",
        "num_channels": plan.out_channels,
        "spatial_shape": patch,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": names,
    }
    return {
        "version": text.version,
        "changelog": {text.version: "packaged by segpipe"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            name: version(name) for name in ("nibabel", "pytorch-ignite") if _installed(name)
        },
        "name": text.name,
        "task": f"Segmentation of {', '.join(plan.structures)}",
        "description": text.description or f"Segments {', '.join(plan.structures)}.",
        "intended_use": text.intended_use,
        "authors": text.authors or "not stated",
        "copyright": text.licence or "not stated",
        "references": list(text.references),
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _inference(plan: Plan, config: UNetConfig, settings: InferenceSettings) -> dict[str, Any]:
    post: list[dict[str, Any]] = [
        {
            "_target_": f"{TRANSFORMS}Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        {"_target_": f"{TRANSFORMS}AsDiscreted", "keys": "pred", "argmax": True},
    ]
    values = [0, *(v[0] for v in plan.structures.values())]
    if values != list(range(len(values))):
        labels = {"orig_labels": list(range(len(values))), "target_labels": values}
        post.append({"_target_": f"{TRANSFORMS}MapLabelValued", "keys": "pred", **labels})
    save = {"output_dir": "@output_dir", "separate_folder": False, "output_postfix": "", "resample": False}
    dtype = "uint8" if max(values) < 256 else "uint16"
    post.append({"_target_": f"{TRANSFORMS}SaveImaged", "keys": "pred", "output_dtype": dtype, **save})
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "cpu",
        "data": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]",
        "network_def": {"_target_": "monai.networks.nets.DynUNet", **_dynunet_arguments(plan, config)},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": f"{TRANSFORMS}Compose", "transforms": _preprocessing(plan)},
        "dataset": {"_target_": "monai.data.Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "monai.data.DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "monai.inferers.SlidingWindowInferer",
            "roi_size": list(plan.patch_size),
            "sw_batch_size": settings.sw_batch_size,
            "overlap": settings.overlap,
            "mode": settings.mode,
            "sigma_scale": settings.sigma_scale,
        },
        "postprocessing": {"_target_": f"{TRANSFORMS}Compose", "transforms": post},
        "handlers": [
            {
                "_target_": "monai.handlers.CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "monai.engines.SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _preprocessing(plan: Plan) -> list[dict[str, Any]]:
    spacing = {"pixdim": list(plan.spacing_mm), "mode": "bilinear" if plan.image_interpolation == "linear" else 3}
    return [
        {"_target_": f"{TRANSFORMS}LoadImaged", "keys": "image"},
        {"_target_": f"{TRANSFORMS}EnsureChannelFirstd", "keys": "image"},
        {"_target_": f"{TRANSFORMS}Orientationd", "keys": "image", "axcodes": plan.axcodes},
        *(_normalisation(plan.channels)),
        {"_target_": f"{TRANSFORMS}Spacingd", "keys": "image", **spacing},
        {"_target_": f"{TRANSFORMS}CastToTyped", "keys": "image", "dtype": "$torch.float32"},
    ]


def _normalisation(channels: Sequence[ChannelPlan]) -> list[dict[str, Any]]:
    """Of the first channel's scheme; a bundle with channels of several schemes is not written (see `_readme`)."""
    first = channels[0]
    if first.scheme == "none":
        return []
    if first.scheme == "zscore":
        every = {"nonzero": first.nonzero, "channel_wise": True}
        return [{"_target_": f"{TRANSFORMS}NormalizeIntensityd", "keys": "image", **every}]
    low, high, mean, std = (float(x) for x in (first.lower, first.upper, first.mean, first.std) if x is not None)
    scaled = {"a_min": low, "a_max": high, "b_min": (low - mean) / std, "b_max": (high - mean) / std, "clip": True}
    return [{"_target_": f"{TRANSFORMS}ScaleIntensityRanged", "keys": "image", **scaled}]


def _readme(plan: Plan, settings: InferenceSettings, networks: int, text: CardText) -> str:
    left_out = [
        *([f"the ensemble: this is the first of {networks} networks"] if networks > 1 else []),
        *(["mirroring at prediction"] if settings.mirror else []),
        *(["cropping to nonzero voxels"] if plan.crop != "none" else []),
        *(["postprocessing of label maps"] if settings.postprocess != "none" else []),
        "the domain guard, the checks of files and memory",
    ]
    command = (
        "python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json "
        "--bundle_root . --dataset_dir SCANS"
    )
    lines = [f"# {text.name} {text.version}", "", NOT_A_DEVICE, "", "```", command, "```", ""]
    return (
        "\n".join([*lines, "A bundle cannot express, and `segpipe predict` does:", "", *(f"- {x}" for x in left_out)])
        + "\n"
    )
