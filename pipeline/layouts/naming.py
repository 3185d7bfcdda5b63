"""What a file's path says about it: image or label map, which case, which channel."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.layouts.found import CHANNEL_SUFFIX, stem

_LABEL_WORD = re.compile(
    r"\d*label(s|map|maps|tr|ts|str|sts|sva|sval)?|lbl|d?segs?|segmentations?|masks?|gt|groundtruth|annotations?|manual|contours?|"
    r"rtstruct(s|ures?)?",
    re.I,
)
_LABEL_FOLDER = re.compile(r"structures|delineations?", re.I)
"""Words for a whole folder; in other names they say too little (an image `deep_structures_t1`)."""
_IMAGE_WORD = re.compile(r"image(s|tr|ts|str|sts|sva|sval)?|imgs?|imaging|scans?|vol|volumes?|unlabell?ed", re.I)
_CHANNEL_WORD = re.compile(r"t1(c|ce|gd|n|w)?|t2(f|w)?|flair|pd|cta?|pe?t|adc|dwi|mri?|swi|stir|mra|tof|dce|asl", re.I)
_PART_OF = r"((images?|labels?|cta?|mri?|data)[_ -]?)?({})([_ -]?(set|data|images?|labels?|cases?|scans?))?"
_TESTING = re.compile(_PART_OF.format("ts|test|testing") + "|unlabell?ed", re.I)
_TRAINING = re.compile(_PART_OF.format("tr|train|training"), re.I)
_VALIDATING = re.compile(r"(images?|labels?)[_ -]?va|" + _PART_OF.format("val|valid|validation"), re.I)
_SIDE_OR_TIME = re.compile(
    r"l|r|lt|rt|left|right|(baseline|base|bl|follow[_-]?up|fu|pre|post|before|after|first|second|third)"
    r"([_-]?(op|treatment|therapy|surgery|\d+))?|"
    r"(visit|week|wk|ses|session|tp|timepoint|day|month|year|exam|study|d|m|y|t|v)[_-]?\d+|(19|20)\d\d([_-]?\d\d){0,2}",
    re.I,
)
_PHASE = re.compile(r"arterial|venous|portal|delayed|native|ed|es|systole|diastole|inspiration|expiration", re.I)
_NUMBER = re.compile(r"\d+")
_GLUED = re.compile(r"^(img|image|scan|vol|volume|label|seg|mask)(\d.*)$", re.I)


@dataclass(frozen=True)
class Name:
    """key: equal for the files of one case. channel: how the file differs from the others of its case.

    id: the case's id where this file is its only image; shared_id: where it is one of several. subject: of whom it is,
    where that is less than the id says. above: the folders above that called `images`, `labels`, ...; None without one.
    """

    path: Path
    key: str
    is_label: bool
    channel: str
    id: str
    shared_id: str
    subject: str = ""
    above: tuple[str, ...] | None = None

    @property
    def place(self) -> str:
        """The folders of the key: those above the file that do not say what is in them."""
        return self.key.rpartition("/")[0]

    def structure_in(self, case: Path) -> str:
        """What a mask of the case in folder `case` is of: `liver` of `mask_liver`, or of `c1_liver` in `c1`.

        Empty where the name says only that it is one (`seg`), or of which case (`c1`).
        """
        words, own = words_of(stem(self.path)), words_of(case.name)
        words = words[len(own) :] if words[: len(own)] == own else words
        return "_".join(word for word in words if not _role(word))

    def of_case_folder(self, folder: Path, case: Path, case_id: str, subject: str) -> Name:
        """This name where `case`, a folder above the file, is the case: what that folder's name does not say is the
        channel.
        """
        own, words = {*words_of(case.name), *words_of(case_id)}, words_of(stem(self.path))
        rest = [word for word in words if word not in own and not _IMAGE_WORD.fullmatch(word)]
        # `CT` and `PET` in the folder `2005-PET-CT`: what says all of a file's name is not what the folder says.
        rest = rest or [word for word in words if len(words) == 1 and _CHANNEL_WORD.fullmatch(word)]
        key = str(case.relative_to(folder))
        return replace(self, key=key, channel="_".join(rest), id=case_id, shared_id=case_id, subject=subject)


def read_name(folder: Path, path: Path, suffixes: bool, labels: Collection[Path] | None = None) -> Name:
    """Reads a path below `folder`. A label word counts in the file's name first, else in the folders' names.

    labels: the files that are label maps, where that is known otherwise.

    `c1_seg`, `label01` and `labels/c1` are label maps; `c1_t1` and, with `suffixes`, `c1_0000` are channels of `c1`.
    Without `suffixes` four digits at the end are part of the case's name.
    """
    text = stem(path)
    folders = path.relative_to(folder).parent.parts
    is_label = _is_label(words_of(text), folders) if labels is None else path in labels
    suffix = CHANNEL_SUFFIX.search(text) if suffixes and not is_label else None
    rest = [word for word in words_of(text[: suffix.start()] if suffix else text) if not _role(word)]
    spoken = rest.pop() if not suffix and len(rest) > 1 and _CHANNEL_WORD.fullmatch(rest[-1]) else ""
    roles = [i for i, part in enumerate(folders) if _role(part) or _LABEL_FOLDER.fullmatch(part)]
    places = [part for i, part in enumerate(folders) if i not in roles]
    return Name(
        path=path,
        key="/".join([*places, "_".join(rest)]),
        is_label=is_label,
        channel=suffix.group(1) if suffix else spoken,
        id=text[: suffix.start()] if suffix else text,
        shared_id=text[: suffix.start()] if suffix else _without_channel(text, rest, spoken),
        above=folders[: roles[-1]] if roles else None,
    )


def _without_channel(text: str, rest: Sequence[str], spoken: str) -> str:
    """`CHUM-001` of `CHUM-001__CT`; of a name that also says its role, the words that are left."""
    return text[: -len(spoken)].rstrip("_-. ") if spoken and [*rest, spoken] == words_of(text) else "_".join(rest)


def words_without_role(text: str) -> list[str]:
    """A name's words, but for those that say image or label map."""
    return [word for word in words_of(text) if not _role(word)]


def _role(word: str) -> bool:
    return bool(_LABEL_WORD.fullmatch(word) or _IMAGE_WORD.fullmatch(word))


def says_role_alone(name: str) -> bool:
    """True for `images`, `labelsTr`: a folder that says what is in it, and not of which case."""
    return bool(_LABEL_FOLDER.fullmatch(name)) or all(_role(word) for word in words_of(name))


def _is_label(words: Sequence[str], folders: Sequence[str]) -> bool:
    """What the file's own name says; where it says nothing, the nearest folder that does."""
    if any(_role(word) for word in words):
        return any(_LABEL_WORD.fullmatch(word) for word in words)
    for part in reversed(folders):
        if _LABEL_FOLDER.fullmatch(part):
            return True
        if spoken := [word for word in words_of(part) if _role(word)]:
            return any(_LABEL_WORD.fullmatch(word) for word in spoken)
    return False


def ids_of_folders(folder: Path, cases: Collection[Path]) -> dict[Path, str]:
    """Each case's folder to an id: its own name, where that tells cases apart.

    Else what does, of the folders above: `sub-1` of `sub-1/ses-1/anat` where all end so, `Center_1_Patient_1` where
    another centre has a Patient_1 too.
    """
    parts = parts_that_tell(folder, cases)
    for count in range(1, max(map(len, parts.values()), default=0) + 1):
        ids = {case: "_".join(own[-count:]) or folder.name for case, own in parts.items()}
        if len(set(ids.values())) == len(ids):
            return ids
    return {case: case.name for case in cases}


def parts_that_tell(folder: Path, cases: Collection[Path]) -> dict[Path, tuple[str, ...]]:
    """Each case's folder to its path below `folder`, without what all end with."""
    parts = {case: case.relative_to(folder).parts for case in cases}
    while len(parts) > 1 and len({own[-1:] for own in parts.values()}) == 1 and min(map(len, parts.values())) > 1:
        parts = {case: own[:-1] for case, own in parts.items()}
    return parts


def says_part(name: str) -> bool:
    """True for `train`, `imagesTs`, `val_set`: a part of the data set."""
    return any(part.fullmatch(name) for part in (_TRAINING, _TESTING, _VALIDATING))


def other_scans(text: str) -> set[str]:
    """The words of a name, or the folders of a place, that a label map and its image have in common, if any."""
    return {word.lower() for word in [*text.split("/"), *words_of(text.rsplit("/", 1)[-1])] if says_another_scan(word)}


def says_side_or_time(name: str) -> bool:
    """True for `left`, `week-2`, `baseline`, `pre_op`: what tells scans of one person apart."""
    return bool(_SIDE_OR_TIME.fullmatch(name))


def says_another_scan(word: str) -> bool:
    """True too for `arterial` and channels: a label map with such a word is not of an image with another one."""
    return says_side_or_time(word) or bool(_PHASE.fullmatch(word) or _CHANNEL_WORD.fullmatch(word))


def numbers_in(text: str) -> str:
    """The numbers of a name, but for those of channels (`t1`)."""
    words = (word for word in words_of(text) if not _CHANNEL_WORD.fullmatch(word))
    return " ".join(number for word in words for number in _NUMBER.findall(word))


def without_numbers(text: str) -> str:
    """A name's words without those of channels and roles, and without numbers."""
    words = (word for word in words_of(text) if not (_CHANNEL_WORD.fullmatch(word) or _role(word)))
    return "_".join(_NUMBER.sub("", word) for word in words)


def is_testing(folder: Path, path: Path) -> bool:
    """True where a folder on the way is one for testing (`imagesTs`, `test`, `unlabelled`)."""
    return any(_TESTING.fullmatch(part) for part in path.relative_to(folder).parent.parts)


def is_validating(folder: Path, path: Path) -> bool:
    """True where a folder on the way is one for validation (`imagesVal`, `val`)."""
    return any(_VALIDATING.fullmatch(part) for part in path.relative_to(folder).parent.parts)


def words_of(text: str) -> list[str]:
    """Pieces between separators, and the number glued to a role word on its own (`label0001`)."""
    words = []
    for word in re.split(r"[_\-. ]+", text):
        glued = _GLUED.match(word)
        words += list(glued.groups()) if glued else [word] if word else []
    return words
