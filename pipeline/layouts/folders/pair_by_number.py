"""Files paired by the numbers in their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.layouts.folders.file_names import Name
from pipeline.layouts.folders.folders_go_together import same_session
from pipeline.layouts.folders.name_vocabulary import CHANNEL_WORD, NUMBER, is_role_name, words_of


def pair_by_number(names: Sequence[Name]) -> list[Name]:
    """`scan_12` and `labels/p12_lab` as one case, where numbers tell all images and all label maps apart; else none.

    None too where the numbers of an image go on after those of a label map (`p12_t2` may be of 12 as `p12_dwi` is),
    where both kinds are called by many words, which may be persons, and where folders are of different parts.
    """
    keyed = [replace(name, key=numbers_in(name.id)) for name in names]
    images, labels = ({name.key: name for name in keyed if name.is_label == kind} for kind in (False, True))
    if not all(images) or not all(labels) or len(images) + len(labels) < len(names):
        return []
    told = [{without_numbers(name.id) for name in several.values()} for several in (images, labels)]
    longer = {" ".join(numbers[:n]) for numbers in map(str.split, images) for n in range(1, len(numbers))}
    if longer & labels.keys():
        return []
    placed = {name.path: name for name in names}
    pairs = [(placed[images[key].path], placed[labels[key].path]) for key in images.keys() & labels.keys()]
    if min(map(len, told)) > 1 and any(_letters(image) != _letters(label) for image, label in pairs):
        return []
    return keyed if all(same_session(*pair) for pair in pairs) else []


def _letters(name: Name) -> str:
    return without_numbers(name.id).replace("_", "").lower()


def numbers_in(text: str) -> str:
    """The numbers of a name, but for those of channels (`t1`)."""
    words = (word for word in words_of(text) if not CHANNEL_WORD.fullmatch(word))
    return " ".join(number for word in words for number in NUMBER.findall(word))


def without_numbers(text: str) -> str:
    """A name's words without those of channels and roles, and without numbers."""
    words = (word for word in words_of(text) if not (CHANNEL_WORD.fullmatch(word) or is_role_name(word)))
    return "_".join(NUMBER.sub("", word) for word in words)
