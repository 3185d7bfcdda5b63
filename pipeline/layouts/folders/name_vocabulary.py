"""The words that people name scans and label maps with: roles, channels, sides and times, parts of a data set."""

from __future__ import annotations

import re
from pathlib import Path

LABEL_WORD = re.compile(
    r"label(s|map|maps|tr|ts|str|sts|sva|sval)?|lbl|d?segs?|segmentations?|masks?|gt|groundtruth|truth|"
    r"annotations?|manual|contours?|rtstruct(s|ures?)?",
    re.I,
)
LABEL_FOLDER = re.compile(r"structures|delineations?", re.I)
"""Words for a whole folder; in other names they say too little (an image `deep_structures_t1`)."""
IMAGE_WORD = re.compile(r"image(s|tr|ts|str|sts|sva|sval)?|imgs?|imaging|scans?|vol|volumes?|unlabell?ed", re.I)
CHANNEL_WORD = re.compile(r"t1(c|ce|gd|n|w)?|t2(f|w)?|flair|pd|cta?|pe?t|adc|dwi|mri?|swi|stir|mra|tof|dce|asl", re.I)
_PART_OF = (
    r"((images?|labels?|cta?|mri?|data|internal|external)[_ -]?)?({})"
    r"([_ -]?(sets?|data|images?|labels?|cases?|scans?))?([_ -]?(\d+|[A-Z]))?"
)
_TESTING = re.compile(_PART_OF.format("ts|test|testing") + "|unlabell?ed", re.I)
_TRAINING = re.compile(_PART_OF.format("tr|train|training"), re.I)
_VALIDATING = re.compile(r"(images?|labels?)[_ -]?va|" + _PART_OF.format("val|valid|validate|validation"), re.I)
_SIDE_OR_TIME = re.compile(
    r"l|r|lt|rt|left|right|(baseline|base|bl|follow[_-]?up|fu|pre|post|before|after|first|second|third)"
    r"([_-]?(op|treatment|therapy|surgery|\d+))?|"
    r"(visit|week|wk|ses|session|tp|timepoint|day|month|year|exam|study|d|m|y|t|v)[_-]?\d+|(19|20)\d\d([_-]?\d\d){0,2}",
    re.I,
)
_PHASE = re.compile(r"arterial|venous|portal|delayed|native|ed|es|systole|diastole|inspiration|expiration", re.I)
_MAY_COUNT = re.compile(r"(19|20)\d\d|[mytv]\d+", re.I)
NUMBER = re.compile(r"\d+")
_GLUED = re.compile(r"^(img|image|scan|vol|volume|label|seg|mask)(\d.*)$", re.I)


def is_split_name(name: str) -> bool:
    """True for `train`, `imagesTs`, `val_set`: a part of the data set."""
    return any(part.fullmatch(name) for part in (_TRAINING, _TESTING, _VALIDATING))


def compatible_scan_tokens(image: str, label: str) -> bool:
    """False where two names, or places, have a side, time, phase or channel each, and not the same one."""
    for kind in (_SIDE_OR_TIME, _PHASE, CHANNEL_WORD):
        here, there = (
            {word.lower() for word in [*text.split("/"), *words_of(text.rsplit("/", 1)[-1])] if kind.fullmatch(word)}
            for text in (image, label)
        )
        if here and there and not here & there:
            return False
    return True


def is_channel_name(word: str) -> bool:
    """True for `t1`, `CT`: a word that names a channel."""
    return bool(CHANNEL_WORD.fullmatch(word))


def is_side_or_time(name: str) -> bool:
    """True for `left`, `week-2`, `baseline`, `pre_op`: what tells scans of one person apart."""
    return bool(_SIDE_OR_TIME.fullmatch(name))


def is_unambiguous_side_or_time(name: str) -> bool:
    """True but for years, months and the like, which may as well be the numbers of persons."""
    return is_side_or_time(name) and not _MAY_COUNT.fullmatch(name)


def is_other_scan(word: str) -> bool:
    """True too for `arterial` and channels: a label map with such a word is not of an image with another one."""
    return is_side_or_time(word) or bool(_PHASE.fullmatch(word) or CHANNEL_WORD.fullmatch(word))


def words_without_role(text: str) -> list[str]:
    """A name's words, but for those that say image or label map."""
    return [word for word in words_of(text) if not is_role_name(word)]


def is_role_name(word: str) -> bool:
    """True for `seg`, `image`: a word that says what a file is."""
    return bool(LABEL_WORD.fullmatch(word) or IMAGE_WORD.fullmatch(word))


def is_only_role_name(name: str) -> bool:
    """True for `images`, `labelsTr`: a folder that says what is in it, and not of which case."""
    return bool(LABEL_FOLDER.fullmatch(name)) or all(is_role_name(word) for word in words_of(name))


def is_testing(folder: Path, path: Path) -> bool:
    """True where a folder on the way is one for testing (`imagesTs`, `test`, `unlabelled`)."""
    return any(_TESTING.fullmatch(part) for part in path.relative_to(folder).parent.parts)


def is_validating(folder: Path, path: Path) -> bool:
    """True where a folder on the way is one for validation (`imagesVal`, `val`)."""
    return any(_VALIDATING.fullmatch(part) for part in path.relative_to(folder).parent.parts)


def words_of(text: str) -> list[str]:
    """Pieces between separators, and the number glued to a role word on its own (`label0001`)."""
    words = []
    for word in re.split(r"[_\-. ]+", re.sub(r"ground[_\-. ]truth", "groundtruth", text, flags=re.I)):
        glued = _GLUED.match(word)
        words += list(glued.groups()) if glued else [word] if word else []
    return words
