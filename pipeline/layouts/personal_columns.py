"""Columns of tables that name a person, left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PERSONAL = re.compile(
    r"^(patients?'?s?[_ -]?)?(first|last|family|given|sur|full)?[_ -]?name$"
    r"|birth|geburt|^dob$|^mrn$|^ssn$|^patient[_ -]?id$|address|phone|e-?mail|initials|insurance|accession"
    r"|(^|[^a-z]|instance|study|series|sop|patient)uid$"
    r"|^(vor|nach)name$",
    re.I,
)


def without_personal(columns: Mapping[str, Any], notes: set[str]) -> dict[str, Any]:
    """Extra columns of a case without those that name a person; what is left out is noted."""
    personal = {key for key in columns if _PERSONAL.search(key.strip())}
    notes.update(f"column {key!r} may identify a person: left out of the manifest" for key in personal)
    return {key: value for key, value in columns.items() if key not in personal and value not in (None, "")}
