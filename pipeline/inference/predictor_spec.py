"""What predictors are built from, as plain values that fit into a line of JSON for another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.inference.predictor_config import PredictorConfig
from pipeline.preprocessing.plan import Plan


@dataclass(frozen=True)
class PredictorSpec:
    """models: a name (for instance a fold) to the weight files of its ensemble.

    fingerprint: what scans are compared with before they are segmented (`domain_check.py`); strict: an
    unlike one is refused, not only remarked on.
    """

    plan: Plan
    settings: PredictorConfig
    models: Mapping[str, tuple[Path, ...]]
    device: str = "auto"
    fingerprint: Mapping[str, Any] | None = None
    strict: bool = False

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Axes along which windows are mirrored; none unless the settings ask for it."""
        return self.plan.mirror_axes if self.settings.mirror else ()

    def to_json(self) -> dict[str, Any]:
        names = set(PredictorConfig.model_fields)
        return {
            "plan": self.plan.model_dump(mode="json"),
            "settings": self.settings.model_dump(mode="json", include=names),
            "models": {name: [str(path) for path in paths] for name, paths in self.models.items()},
            "device": self.device,
            "fingerprint": None if self.fingerprint is None else dict(self.fingerprint),
            "strict": self.strict,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PredictorSpec:
        return cls(
            plan=Plan.model_validate(content["plan"]),
            settings=PredictorConfig.model_validate(content["settings"]),
            models={name: tuple(map(Path, paths)) for name, paths in content["models"].items()},
            device=content["device"],
            fingerprint=content["fingerprint"],
            strict=content["strict"],
        )
