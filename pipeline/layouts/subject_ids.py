"""Subjects that case ids name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.layouts.dataset_listing import ListedCase
from pipeline.layouts.folders.name_vocabulary import is_channel_name, is_role_name, is_unambiguous_side_or_time


def subject_of(case: str) -> str:
    """The subject that a case id names: `sub-01` of the BIDS-like `sub-01_ses-2`, `BraTS-GLI-00001` of
    `BraTS-GLI-00001-001` (the second visit), `p1` of `p1_visit2` and of `p1_left`, else the id itself."""
    found = re.match(r"sub-[A-Za-z0-9]+|BraTS-[A-Za-z]+-\d{5}(?=-\d{3}$)", case)
    return found.group(0) if found else _without_side_or_time(case)


def _without_side_or_time(case: str) -> str:
    """`p1` of `p1_month-6_left_ct`: without the words at the end that tell scans of one person apart."""
    words = list(re.finditer(r"[^._-]+", case))
    while len(words) > 1 and (is_role_name(words[-1].group(0)) or is_channel_name(words[-1].group(0))):
        words.pop()
    kept = words
    while n := next((n for n in (2, 1) if n < len(kept) and _tells_a_scan(case, kept[-n:])), 0):
        kept = kept[:-n]
    return case[: kept[-1].end()] if len(kept) < len(words) else case


def _tells_a_scan(case: str, words: Sequence[re.Match[str]]) -> bool:
    return is_unambiguous_side_or_time(case[words[0].start() : words[-1].end()])


def subjects_of(cases: Sequence[ListedCase]) -> list[str]:
    """Each case's subject, as far as its id tells; where all would be of one, what they share is no person's name."""
    told = [case.subject or subject_of(case.id) for case in cases]
    return told if len(set(told)) > 1 else [case.subject or case.id for case in cases]
