"""The description of the model that /model gives."""

from __future__ import annotations

from typing import Any

from pipeline.deploy.server.server_settings import ServiceLimits
from pipeline.packaging.model_package import ModelPackage
from pipeline.web.browser_volumes import planned_windows


def describe(model: ModelPackage, limits: ServiceLimits) -> dict[str, Any]:
    """What `/model` says: card, labels, figures, what scans must have and how large they may be."""
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "channels": list(model.channels),
        "windows": planned_windows(model.plan.channels),
        "labels": [label.model_dump(mode="json") for label in model.labels],
        "metrics": model.metrics,
        "card": model.card,
        "upload_mib": limits.upload_mib,
    }
