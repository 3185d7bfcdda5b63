"""Modality of a channel by its name: CT, PET or MR."""

from __future__ import annotations

import re

_MODALITIES = {"CT": {"ct", "cta", "cect", "ncct", "cbct"}, "PET": {"pet", "pt", "suv"}}


def modality_of(name: str) -> str:
    """The modality that a channel's name stands for: CT, PET or MR (whatever is not known is treated like MR).

    A word of the name says it: CT, CT_arterial, PET-SUV. Where words say different things (PET/CT), none does.
    """
    words = {re.sub(r"[^a-z0-9]", "", name.lower()), *re.split(r"[^a-z0-9]+", name.lower())}
    said = {modality for modality, known in _MODALITIES.items() if words & known}
    return said.pop() if len(said) == 1 else "MR"
