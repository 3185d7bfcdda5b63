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
_CHANNEL_WORD = re.compile(r"t1(c|ce|gd|n|w)?|t2(f|w)?|flair|pd|cta?|pe?t|adc|dwi|mri?|swi", re.I)
_TESTING = re.compile(r"((images?|labels?)[_ -]?)?(ts|test|testing)|unlabell?ed", re.I)
_VALIDATING = re.compile(r"(images?|labels?)[_ -]?va|((images?|labels?)[_ -]?)?(val|valid|validation)", re.I)
_GLUED = re.compile(r"^(img|image|scan|vol|volume|label|seg|mask)(\d.*)$", re.I)


@dataclass(frozen=True)
class Name:
    """key: equal for the files of one case. channel: how the file differs from the others of its case.

    id: the case's id where this file is its only image; shared_id: where it is one of several. subject: of whom it is,
    where that is less than the id says.
    """

    path: Path
    key: str
    is_label: bool
    channel: str
    id: str
    shared_id: str
    subject: str = ""

    def structure_in(self, case: Path) -> str:
        """What a mask of the case in folder `case` is of: `liver` of `mask_liver`, or of `c1_liver` in `c1`.

        Empty where the name says only that it is one (`seg`), or of which case (`c1`).
        """
        words, own = _words(stem(self.path)), _words(case.name)
        words = words[len(own) :] if words[: len(own)] == own else words
        return "_".join(word for word in words if not _role(word))

    def of_case_folder(self, folder: Path, case: Path, case_id: str) -> Name:
        """This name where `case`, a folder above the file, is the case: what that folder's name does not say is the
        channel.
        """
        own, words = {*_words(case.name), *_words(case_id)}, _words(stem(self.path))
        rest = [word for word in words if word not in own and not _IMAGE_WORD.fullmatch(word)]
        # `CT` and `PET` in the folder `2005-PET-CT`: what says all of a file's name is not what the folder says.
        rest = rest or [word for word in words if len(words) == 1 and _CHANNEL_WORD.fullmatch(word)]
        key = str(case.relative_to(folder))
        return replace(self, key=key, channel="_".join(rest), id=case_id, shared_id=case_id)


def read_name(folder: Path, path: Path, suffixes: bool, labels: Collection[Path] | None = None) -> Name:
    """Reads a path below `folder`. A label word counts in the file's name first, else in the folders' names.

    labels: the files that are label maps, where that is known otherwise.

    `c1_seg`, `label01` and `labels/c1` are label maps; `c1_t1` and, with `suffixes`, `c1_0000` are channels of `c1`.
    Without `suffixes` four digits at the end are part of the case's name.
    """
    text = stem(path)
    folders = path.relative_to(folder).parent.parts
    is_label = _is_label(_words(text), folders) if labels is None else path in labels
    suffix = CHANNEL_SUFFIX.search(text) if suffixes and not is_label else None
    rest = [word for word in _words(text[: suffix.start()] if suffix else text) if not _role(word)]
    spoken = rest.pop() if not suffix and len(rest) > 1 and _CHANNEL_WORD.fullmatch(rest[-1]) else ""
    return Name(
        path=path,
        key="/".join(
            [*(part for part in folders if not (_role(part) or _LABEL_FOLDER.fullmatch(part))), "_".join(rest)]
        ),
        is_label=is_label,
        channel=suffix.group(1) if suffix else spoken,
        id=text[: suffix.start()] if suffix else text,
        shared_id=text[: suffix.start()] if suffix else _without_channel(text, rest, spoken),
    )


def _without_channel(text: str, rest: Sequence[str], spoken: str) -> str:
    """`CHUM-001` of `CHUM-001__CT`; of a name that also says its role, the words that are left."""
    return text[: -len(spoken)].rstrip("_-. ") if spoken and [*rest, spoken] == _words(text) else "_".join(rest)


def _role(word: str) -> bool:
    return bool(_LABEL_WORD.fullmatch(word) or _IMAGE_WORD.fullmatch(word))


def says_role_alone(name: str) -> bool:
    """True for `images`, `labelsTr`: a folder that says what is in it, and not of which case."""
    return bool(_LABEL_FOLDER.fullmatch(name)) or all(_role(word) for word in _words(name))


def _is_label(words: Sequence[str], folders: Sequence[str]) -> bool:
    """What the file's own name says; where it says nothing, the nearest folder that does."""
    if any(_role(word) for word in words):
        return any(_LABEL_WORD.fullmatch(word) for word in words)
    for part in reversed(folders):
        if _LABEL_FOLDER.fullmatch(part):
            return True
        if spoken := [word for word in _words(part) if _role(word)]:
            return any(_LABEL_WORD.fullmatch(word) for word in spoken)
    return False


def ids_of_folders(folder: Path, cases: Collection[Path]) -> dict[Path, str]:
    """Each case's folder to an id: its own name, where that tells cases apart.

    Else what does, of the folders above: `sub-1` of `sub-1/ses-1/anat` where all end so, `Center_1_Patient_1` where
    another centre has a Patient_1 too.
    """
    parts = {case: case.relative_to(folder).parts for case in cases}
    while parts and len({own[-1:] for own in parts.values()}) == 1 < len(parts) and all(map(len, parts.values())):
        parts = {case: own[:-1] for case, own in parts.items()}
    for count in range(1, max(map(len, parts.values()), default=0) + 1):
        ids = {case: "_".join(own[-count:]) for case, own in parts.items()}
        if len(set(ids.values())) == len(ids):
            return ids
    return {case: case.name for case in cases}


def is_testing(folder: Path, path: Path) -> bool:
    """True where a folder on the way is one for testing (`imagesTs`, `test`, `unlabelled`)."""
    return any(_TESTING.fullmatch(part) for part in path.relative_to(folder).parent.parts)


def is_validating(folder: Path, path: Path) -> bool:
    """True where a folder on the way is one for validation (`imagesVal`, `val`)."""
    return any(_VALIDATING.fullmatch(part) for part in path.relative_to(folder).parent.parts)


def _words(text: str) -> list[str]:
    """Pieces between separators, and the number glued to a role word on its own (`label0001`)."""
    words = []
    for word in re.split(r"[_\-. ]+", text):
        glued = _GLUED.match(word)
        words += list(glued.groups()) if glued else [word] if word else []
    return words
