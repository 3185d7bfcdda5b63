"""Makes the folder of a trained nnU-Net v2 model from weights in a file; run by the peer's own Python.

    PEER_PYTHON benchmarks/nnunet_model.py WEIGHTS.npz FOLDER

The plan is the one that nnU-Net 2.8.1 makes for Task04 hippocampus (3d_fullres), but for the widths, which are those of
the weights. Arrays are named as in its network's state; convolution biases that are not there are zero.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "anterior": 1, "posterior": 2},
    "numTraining": 208,
    "file_ending": ".nii.gz",
}
PATCH = [40, 56, 40]


def main(weights: Path, folder: Path) -> None:
    arrays = dict(np.load(weights))
    features = [len(arrays[f"encoder.stages.{level}.0.convs.0.conv.weight"]) for level in range(4)]
    (folder / "fold_0").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DATASET), encoding="utf-8")
    (folder / "plans.json").write_text(json.dumps(plans(features)), encoding="utf-8")
    checkpoint = {
        "network_weights": filled(network(features).state_dict(), arrays),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def architecture(features: list[int]) -> dict[str, Any]:
    levels = len(features)
    return {
        "n_stages": levels,
        "features_per_stage": features,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * levels,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (levels - 1)],
        "n_conv_per_stage": [2] * levels,
        "n_conv_per_stage_decoder": [2] * (levels - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def network(features: list[int]) -> torch.nn.Module:
    kinds = {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    return PlainConvUNet(input_channels=1, num_classes=3, **{**architecture(features), **kinds})


def filled(state: dict[str, torch.Tensor], arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The network's state with our arrays. Every array must have a place, and every weight an array or no effect."""
    used = set()
    for name, tensor in state.items():
        ours = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
        ours = ours.replace("all_modules.0", "conv").replace("all_modules.1", "norm")
        if ours in arrays:
            tensor.copy_(torch.from_numpy(arrays[ours]))
            used.add(ours)
        elif ours.endswith(".bias"):
            tensor.zero_()
        elif not ours.startswith("decoder.seg_layers"):
            raise SystemExit(f"no weights for {name}")
    if used != set(arrays):
        raise SystemExit(f"no place for {sorted(set(arrays) - used)}")
    return state


def plans(features: list[int]) -> dict[str, Any]:
    resampling = {
        f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")
    } | {
        f"resampling_fn_{what}_kwargs": {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        for what, is_seg, order in (("data", False, 3), ("seg", True, 1), ("probabilities", False, 1))
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 7,
        "patch_size": PATCH,
        "median_image_size_in_voxels": [36.0, 50.0, 35.0],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": architecture(features),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset004_Hippocampus",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [36, 50, 35],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
        },
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
