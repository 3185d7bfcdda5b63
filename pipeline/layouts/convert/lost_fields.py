"""Fields of a manifest that another layout cannot hold, and are lost in it."""

from __future__ import annotations

from pipeline.dataset.manifest import Manifest


def lost_fields(manifest: Manifest, extra_too: bool) -> list[str]:
    """What the layout has no place for."""
    lost = []
    if any(case.subject not in (None, case.id) for case in manifest.cases):
        lost.append("the layout has no subjects; keep the folds given here, so that no subject is on both sides")
    if extra_too and (names := sorted({key for case in manifest.cases for key in case.extra})):
        lost.append(f"the layout has no place for the columns {', '.join(names)}")
    return lost
