"""`configs/inference.json` of a MONAI bundle: from a scan to its segmentation with MONAI's own transforms.

Everything is as segpipe does it, in the same order: axes, crop, normalisation, the planned grid, windows, and all the
way back. MONAI's `Spacing` rounds another way, so the planned grid is computed in the two expressions below.
"""

from __future__ import annotations

from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.models.networks.network_config import UNetConfig
from pipeline.preprocessing.plan import Plan

_TRANSFORMS = "monai.transforms."
_PLANNED_SHAPE = (
    "$lambda image: [max(round(n * old / new), 1) "
    "for n, old, new in zip(image.shape[1:], image.pixdim.tolist(), @spacing_mm)]"
)
"""As many voxels as cover the image (see `pipeline.io.geometry.resampled_grid`)."""
_PLANNED_GRID = (
    "$lambda image, shape: monai.data.MetaTensor(torch.zeros(1).expand(1, *shape), affine="
    "torch.matmul(image.affine, torch.from_numpy("
    "monai.transforms.utils.scale_affine(list(image.shape[1:]), shape))))"
)
_NOT_AIR = {"CT": "$lambda image: image > -700", "": "$lambda image: image > image.amin((1, 2, 3), True)"}
"""What is not background (see `pipeline.dataset.foreground_box`)."""


class NoBundleForm(ConfigError):
    """What a package does cannot be written as a bundle."""


def network_arguments(plan: Plan, config: UNetConfig) -> dict[str, Any]:
    """The arguments with which MONAI's DynUNet is the plan's network."""
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


def inference_config(plan: Plan, config: UNetConfig, settings: PredictorConfig) -> dict[str, Any]:
    """The configuration that `python -m monai.bundle run` takes.

    Raises NoBundleForm where channels are normalised in different ways, or cropped by different rules.
    """
    return {
        "imports": ["$import glob", "$import torch", "$import monai"],
        "bundle_root": ".",
        "dataset_dir": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "cpu",
        "data": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]",
        "network_def": {"_target_": "monai.networks.nets.DynUNet", **network_arguments(plan, config)},
        "network": "$@network_def.to(@device)",
        "spacing_mm": list(plan.spacing_mm),
        "planned_shape": _PLANNED_SHAPE,
        "planned_grid": _PLANNED_GRID,
        "preprocessing": {"_target_": f"{_TRANSFORMS}Compose", "transforms": _preprocessing(plan)},
        "dataset": {"_target_": "monai.data.Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "monai.data.DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "monai.inferers.SlidingWindowInferer",
            "roi_size": list(settings.window(plan.patch_size)),
            "sw_batch_size": settings.sw_batch_size,
            "overlap": settings.overlap,
            "mode": settings.mode,
            "sigma_scale": settings.sigma_scale,
        },
        "postprocessing": {"_target_": f"{_TRANSFORMS}Compose", "transforms": _postprocessing(plan)},
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


def _transform(name: str, keys: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{_TRANSFORMS}{name}", "keys": keys, **arguments}


def _preprocessing(plan: Plan) -> list[dict[str, Any] | str]:
    mode = "bilinear" if plan.image_interpolation == "linear" else 3
    return [
        _transform("LoadImaged", "image"),
        _transform("EnsureChannelFirstd", "image"),
        _transform("Orientationd", "image", axcodes=plan.axcodes),
        *_crop(plan),
        *_normalisation(plan),
        "$lambda data: {**data, 'planned': @planned_grid(data['image'], @planned_shape(data['image']))}",
        _transform(
            "ResampleToMatchd", "image", key_dst="planned", mode=mode,
            padding_mode="border" if mode == "bilinear" else "nearest",
        ),
        _transform("DeleteItemsd", "planned"),
        _transform("CastToTyped", "image", dtype="$torch.float32"),
    ]  # fmt: skip


def _crop(plan: Plan) -> list[dict[str, Any]]:
    if plan.crop == "none":
        return []
    modalities = {"CT" if channel.modality.upper() == "CT" else "" for channel in plan.channels}
    if len(modalities) > 1:
        raise _no_form("channels of CT and of another modality that are cropped")
    return [_transform("CropForegroundd", "image", source_key="image", select_fn=_NOT_AIR[modalities.pop()])]


def _normalisation(plan: Plan) -> list[dict[str, Any]]:
    if len({tuple(sorted(channel.model_dump(exclude={"name", "modality"}).items())) for channel in plan.channels}) > 1:
        raise _no_form("channels that are normalised in different ways")
    first = plan.channels[0]
    if first.scheme == "none":
        return []
    if first.scheme == "zscore":
        return [_transform("NormalizeIntensityd", "image", nonzero=first.nonzero, channel_wise=True)]
    low, high, mean, std = (float(x) for x in (first.lower, first.upper, first.mean, first.std) if x is not None)
    bounds = {"a_min": low, "a_max": high, "b_min": (low - mean) / std, "b_max": (high - mean) / std}
    return [_transform("ScaleIntensityRanged", "image", **bounds, clip=True)]


def _no_form(what: str) -> NoBundleForm:
    return NoBundleForm(f"{what} have no form as MONAI bundle")


def _postprocessing(plan: Plan) -> list[dict[str, Any]]:
    back = _transform("Invertd", "pred", transform="@preprocessing", orig_keys="image", nearest_interp=False)
    steps = [{**back, "to_tensor": True}, _transform("AsDiscreted", "pred", argmax=True)]
    values = [0, *(v[0] for v in plan.structures.values())]
    if values != list(range(len(values))):
        labels = {"orig_labels": list(range(len(values))), "target_labels": values}
        steps.append(_transform("MapLabelValued", "pred", **labels))
    save = {"output_dir": "@output_dir", "separate_folder": False, "output_postfix": "", "resample": False}
    dtype = "uint8" if max(values) < 256 else "uint16"
    return [*steps, _transform("SaveImaged", "pred", output_dtype=dtype, **save)]
