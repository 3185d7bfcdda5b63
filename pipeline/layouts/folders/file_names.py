"""What a file's path says about it: image or label map, which case, which channel."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.io.image_file_names import CHANNEL_SUFFIX, stem
from pipeline.layouts.folders.label_map_by_name import is_label_by_name
from pipeline.layouts.folders.name_vocabulary import (
    CHANNEL_WORD,
    IMAGE_WORD,
    LABEL_FOLDER,
    is_role_name,
    is_side_or_time,
    words_of,
)


@dataclass(frozen=True)
class Name:
    """key: equal for the files of one case. channel: how the file differs from the others of its case.

    id: the case's id where this file is its only image; shared_id: where it is one of several. subject: the person,
    where the id says more (`1` of `1_t1`); empty: unknown. above: the folders above the last one called `images`,
    `labels`, ...; None where there is none.
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

        Empty where the name says only that it is one (`seg`), of which case (`c1`), or when it was made (`visit2`).
        """
        words, own = words_of(stem(self.path)), words_of(case.name)
        words = words[len(own) :] if words[: len(own)] == own else words
        rest = [word for word in words if not is_role_name(word)]
        return "" if all(is_side_or_time(word) and re.search(r"\d", word) for word in rest) else "_".join(rest)

    def of_case_folder(self, folder: Path, case: Path, case_id: str, subject: str) -> Name:
        """This name where `case`, a folder above the file, is the case: what that folder's name does not say is the
        channel.
        """
        words = words_of(stem(self.path))
        rest = _without_case(words, words_of(case.name))
        while len(rest) > 1 and rest[0] in words_of(case_id):
            rest = rest[1:]
        rest = [word for word in rest if not IMAGE_WORD.fullmatch(word)]
        # `CT` and `PET` in the folder `2005-PET-CT`: what says all of a file's name is not what the folder says.
        rest = rest or [word for word in words if len(words) == 1 and CHANNEL_WORD.fullmatch(word)]
        key = str(case.relative_to(folder))
        return replace(self, key=key, channel="_".join(rest), id=case_id, shared_id=case_id, subject=subject)


Groups = Mapping[str, Sequence[Name]]


def read_name(folder: Path, path: Path, suffixes: bool, labels: Collection[Path] | None = None) -> Name:
    """Reads a path below `folder`. A label word counts in the file's name first, else in the folders' names.

    labels: the files that are label maps, where that is known otherwise.

    `c1_seg`, `label01` and `labels/c1` are label maps; `c1_t1` and, with `suffixes`, `c1_0000` are channels of `c1`.
    Without `suffixes` four digits at the end are part of the case's name.
    """
    text = stem(path)
    folders = path.relative_to(folder).parent.parts
    is_label = is_label_by_name(words_of(text), folders) if labels is None else path in labels
    suffix = CHANNEL_SUFFIX.search(text) if suffixes and not is_label else None
    rest = [word for word in words_of(text[: suffix.start()] if suffix else text) if not is_role_name(word)]
    spoken = rest.pop() if not suffix and len(rest) > 1 and CHANNEL_WORD.fullmatch(rest[-1]) else ""
    roles = [i for i, part in enumerate(folders) if is_role_name(part) or LABEL_FOLDER.fullmatch(part)]
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


def _without_case(words: Sequence[str], case: Sequence[str]) -> list[str]:
    """A file's words without its case's at the beginning, or at the end; a number alone at the end may be a channel."""
    same = 0
    while same < min(len(words), len(case)) and words[same] == case[same]:
        same += 1
    if not same and not "".join(case).isdigit() and list(words[-len(case) :]) == list(case):
        return list(words[: -len(case)])
    return list(words[same:])


def beginnings_of(key: str) -> list[str]:
    """`a_b` and `a` of `a_b_c`: the longest first, and not the whole."""
    words = key.split("_")
    return ["_".join(words[:count]) for count in range(len(words) - 1, 0, -1)]


def without_folders(names: Sequence[Name]) -> list[Name]:
    return [replace(name, key=name.key.rsplit("/", 1)[-1]) for name in names]
