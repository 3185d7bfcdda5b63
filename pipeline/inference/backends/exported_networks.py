"""Exported networks of a package: where they lie next to the weights, and whether they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.inference.predictor_spec import PredictorSpec

EXPORT_ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}


def exported_paths(spec: PredictorSpec, kind: str) -> list[Path]:
    """Return the exported form of every weight file, whether or not it is there."""
    return [_export(path, kind) for paths in spec.models.values() for path in paths]


def require_exports(spec: PredictorSpec, kind: str) -> Mapping[str, Sequence[Path]]:
    """Return the exports by model; a DataError names the first that is missing."""
    for path in exported_paths(spec, kind):
        if not path.is_file():
            raise DataError(f"{path}: running the package by {kind} needs it; package it with exports: [{kind}]")
    return {name: [_export(path, kind) for path in paths] for name, paths in spec.models.items()}


def _export(weights: Path, kind: str) -> Path:
    return weights.parents[1] / "exports" / f"{weights.stem}{EXPORT_ENDINGS[kind]}"
