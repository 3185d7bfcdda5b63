"""Section `data`: the manifest and the folder of the scans."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.strict_model import StrictModel


class DataConfig(StrictModel):
    """Where the data is."""

    manifest: Path
    """The manifest: cases, labels, licence, splits (`data_manifests/README.md`)."""
    root: Path | None = None
    """The folder that the manifest's paths start from; null: the manifest's own root."""
    download: str | None = None
    """Reserved for data sets that may be fetched on request; nothing is ever fetched unasked."""
