"""Section `infer`: how trained networks are applied, and to which cases."""

from __future__ import annotations

from typing import Literal

from pipeline.inference.predictor_config import PredictorConfig


class InferConfig(PredictorConfig):
    """How trained networks are applied, and to which cases."""

    cases: tuple[Literal["validation", "testing"], ...] = ("validation", "testing")
    """validation: each by the fold that did not train on it. testing: by all trained folds together."""
