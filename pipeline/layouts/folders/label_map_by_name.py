"""Whether a file is a label map, by the words of its name and folders."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.layouts.folders.name_vocabulary import LABEL_FOLDER, LABEL_WORD, is_role_name, words_of


def is_label_by_name(words: Sequence[str], folders: Sequence[str]) -> bool:
    """What the file's own name says; where it says nothing, the nearest folder that does."""
    if any(is_role_name(word) for word in words):
        return any(LABEL_WORD.fullmatch(word) for word in words)
    for part in reversed(folders):
        if LABEL_FOLDER.fullmatch(part):
            return True
        if spoken := [word for word in words_of(part) if is_role_name(word)]:
            return any(LABEL_WORD.fullmatch(word) for word in spoken)
    return False
