"""`configs/metadata.json` of a MONAI bundle, and a schema to check it with where there is no network.

The schema is segpipe's own, written from the MONAI Bundle Specification. It is not the file that MONAI releases; the
`schema` of the metadata names that one, for tools that download it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.packaging.model_card import CardText
from pipeline.preprocessing.plan import ChannelPlan, Plan

RELEASED_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
SCHEMA = "segpipe_metadata.schema.json"
"""Name of segpipe's own schema, in `configs/` beside the metadata."""
_SCHEMA_FILE = Path(__file__).parent / SCHEMA
NEEDED = {"nibabel": "5.4.2", "pytorch-ignite": "0.5.5", "fire": "0.7.1"}
"""What MONAI needs beside itself to run the bundle from the command line, in the versions that were tested with it."""


def schema_text() -> str:
    """segpipe's schema of bundle metadata (JSON Schema)."""
    return _SCHEMA_FILE.read_text(encoding="utf-8")


def bundle_metadata(plan: Plan, text: CardText, summary: Mapping[str, Any], data_licence: str) -> dict[str, Any]:
    """The metadata. `summary` is evaluate's summary.json; structures have one label value each."""
    values = {str(v[0]): name for name, v in plan.structures.items()}
    channels = {str(i): name for i, name in enumerate(("background", *plan.structures))}
    licence = f"weights: {text.licence or 'not stated'}; training data: {data_licence or 'not stated'}"
    return {
        "schema": RELEASED_SCHEMA,
        "version": text.version,
        "changelog": {text.version: "packaged by segpipe"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: _installed(name) or tested for name, tested in NEEDED.items()},
        "name": text.name,
        "task": f"Segmentation of {', '.join(plan.structures)}",
        "description": text.description or f"Segments {', '.join(plan.structures)}.",
        "intended_use": text.intended_use,
        "authors": text.authors or "not stated",
        "copyright": licence,
        "data_type": "nibabel",
        "pred_classes": ", ".join(f"{value}: {name}" for value, name in {"0": "background", **values}.items()),
        "eval_metrics": _dice(summary),
        "references": list(text.references),
        "network_data_format": {
            "inputs": {"image": _image(plan)},
            "outputs": {"pred": {**_tensor(plan, plan.out_channels, channels), "format": "labels"}},
            "post_processed_outputs": {"pred": _label_map(values)},
        },
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _tensor(plan: Plan, channels: int, names: Mapping[str, str]) -> dict[str, Any]:
    """What goes into and comes out of the network: one window. Its values are not bounded ([]), unless said after."""
    return {
        "type": "image",
        "num_channels": channels,
        "spatial_shape": list(plan.patch_size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": dict(names),
    }


def _image(plan: Plan) -> dict[str, Any]:
    ct = all(channel.scheme == "ct" for channel in plan.channels)
    return {
        **_tensor(plan, len(plan.channels), {str(i): channel.name for i, channel in enumerate(plan.channels)}),
        "format": "hounsfield" if ct else "magnitude",
        "modality": ", ".join(dict.fromkeys(channel.modality for channel in plan.channels)),
        "value_range": _ct_range(plan.channels) if ct else [],
    }


def _ct_range(channels: tuple[ChannelPlan, ...]) -> list[float]:
    """What clipping and normalisation leave."""
    low, high, mean, std = zip(*((c.lower or 0, c.upper or 0, c.mean or 0, c.std or 1) for c in channels), strict=True)
    bounds = [(x - m) / s for ends in (low, high) for x, m, s in zip(ends, mean, std, strict=True)]
    return [min(bounds), max(bounds)]


def _label_map(values: Mapping[str, str]) -> dict[str, Any]:
    largest = max(map(int, values))
    return {
        "type": "image",
        "format": "segmentation",
        "num_channels": 1,
        "spatial_shape": ["*", "*", "*"],
        "dtype": "uint8" if largest < 256 else "uint16",
        "value_range": [0, largest],
        "is_patch_data": False,
        "channel_def": {"0": "background", **values},
    }


def _dice(summary: Mapping[str, Any]) -> dict[str, float]:
    """Mean Dice of each structure and over them, where it is defined."""
    entries = {**summary.get("structures", {}), "mean": summary.get("mean", {})}
    found = {name: entry.get("dice", {}).get("mean") for name, entry in entries.items()}
    return {f"dice {name}": mean for name, mean in found.items() if mean is not None}
