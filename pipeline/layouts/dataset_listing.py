"""What a layout's reader finds in a folder, and the rules of names that all layouts share."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.dataset.cases_json import Channel
from pipeline.io.image_file_names import CHANNEL_SUFFIX, IMAGE_ENDINGS, image_ending, stem
from pipeline.layouts.folders.name_vocabulary import is_channel_name, is_role_name, is_unambiguous_side_or_time
from pipeline.layouts.label_names import LabelNames
from pipeline.layouts.list_files import files_below

Split = Literal["training", "testing"]
_PERSONAL = re.compile(
    r"^(patients?'?s?[_ -]?)?(first|last|family|given|sur|full)?[_ -]?name$"
    r"|birth|geburt|^dob$|^mrn$|^ssn$|^patient[_ -]?id$|address|phone|e-?mail|initials|insurance|accession"
    r"|(^|[^a-z]|instance|study|series|sop|patient)uid$"
    r"|^(vor|nach)name$",
    re.I,
)
_PIECE = 2**20
_SHOWN = 5
_MODALITIES = {"CT": {"ct", "cta", "cect", "ncct", "cbct"}, "PET": {"pet", "pt", "suv"}}


@dataclass(frozen=True)
class ListedCase:
    """One case with absolute paths; they need not exist (a file that is listed but missing is `load`'s to name)."""

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    split: Split = "training"
    subject: str = ""
    """Empty: taken from the id (`subject_of`)."""
    fold: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[str, Path] = field(default_factory=dict)
    """Structure to its own binary mask, where there is no label map; `masks.merge_masks` makes one of them."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Images, then the label map where there is one."""
        return (*self.images, *([self.label] if self.label else []))


@dataclass(frozen=True)
class DatasetListing:
    """A data set as a layout describes it. `labelling` None: neither names nor values are declared."""

    layout: str
    folder: Path
    name: str
    channels: tuple[Channel, ...]
    cases: tuple[ListedCase, ...]
    labelling: LabelNames | None = None
    labelling_is_lookup: bool = False
    """True: the labelling is a table of many names, of which only values that occur are structures."""
    paths_identify: bool = False
    """True: folder names below `folder` carry a person's name or id, so they must not reach the manifest."""
    description: str = ""
    licence: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    """Sentences to say aloud: what was assumed."""
    problems: tuple[Problem, ...] = ()
    """What a person should look at: missing, doubtful or left out files."""


def image_files(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted; hidden ones (also AppleDouble `._x`) and .img halves are left out.

    Where a file lies there packed and unpacked alike (c1.nii.gz, c1.nii), it counts once.
    """
    paths = sorted(filter(is_image, files_below(folder)))
    packed = {path.with_suffix(""): path for path in paths if path.name.lower().endswith(".nii.gz")}
    return [path for path in paths if path not in packed or not _unpacks_to(packed[path], path)]


def is_image(path: Path) -> bool:
    """True for a visible file with an image ending; of a .hdr/.img pair the .hdr stands for both.

    A link to a file that is not there (data sets whose files are fetched on demand) is one too, and is then named as
    missing.
    """
    name = path.name.lower()
    if path.name.startswith(".") or not name.endswith(tuple(IMAGE_ENDINGS)):
        return False
    if not (path.is_file() or (path.is_symlink() and not path.exists())):
        return False
    header = path.with_suffix(".hdr")
    return not (name.endswith(".img") and header.is_file())


@cache
def _unpacks_to(packed: Path, plain: Path) -> bool:
    """Whether a gzip file holds just what lies in `plain`; asked once, since both are read to their ends."""
    try:
        with gzip.open(packed) as inner, plain.open("rb") as outer:
            while (piece := inner.read(_PIECE)) == outer.read(_PIECE):
                if not piece:
                    return True
    except (OSError, EOFError, zlib.error):
        return False
    return False


def table_text(path: Path) -> tuple[str, bool]:
    """The text of a table, and whether it had to be read as Windows writes it (in Excel: CSV without "UTF-8")."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # in Excel: "Unicode Text"
        return content.decode("utf-16", errors="replace"), False
    try:
        return content.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), True


def by_channel(paths: Iterable[Path], channels: int) -> dict[str, dict[str, Path]]:
    """Case id to channel (`0000`) to file, by the suffix; a name without one is its case's channel 0000.

    Digits that are no channel's (`case_0007` of a data set with `channels` < 8) belong to the id. Raises a DataError
    that names all files which would become the same case and channel.
    """
    claims: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in paths:
        text = stem(path)
        suffix = CHANNEL_SUFFIX.search(text)
        if suffix and int(suffix.group(1)) < channels:
            claims[text[: suffix.start()], suffix.group(1)].append(path)
        else:
            claims[text, "0000"].append(path)
    refuse_shared_ids({f"{case} (channel {channel})": files for (case, channel), files in claims.items()})
    cases: dict[str, dict[str, Path]] = defaultdict(dict)
    for (name, channel), files in claims.items():
        cases[name][channel] = files[0]
    return dict(cases)


def ids_of(images: Sequence[Path]) -> list[str]:
    """Case ids of listed images: names without ending and channel suffix, where that tells them apart.

    A list of `case_0001`, `case_0002`, ... keeps the digits: they are not channels of one case.
    """
    whole = [stem(path) for path in images]
    short = [CHANNEL_SUFFIX.sub("", name) for name in whole]
    return short if len(set(short)) == len(set(whole)) else whole


def refuse_shared_ids(claims: Mapping[str, Sequence[Path | str]], cure: str = "or rename the others") -> None:
    """Raises a DataError that names every case id claimed by more than one file (or row)."""
    problems = [
        Problem(name, f"is the id of {len(files)}: {', '.join(map(str, files))}; keep one, {cure}")
        for name, files in sorted(claims.items())
        if len(files) > 1
    ]
    if problems:
        raise DataError(problem_list("the data set (case id = file name without ending and channel suffix)", problems))


def channel_stack(
    case: str, files: Mapping[str, Path], channels: Sequence[str], problems: list[Problem]
) -> tuple[Path, ...]:
    """A case's files in the order of `channels`; a missing one is named and stands with the name it should have.

    The channel "" is that of a file whose name has no word for it.
    """
    stack = []
    for channel in channels:
        if channel in files:
            stack.append(files[channel])
            continue
        expected = _sister(*next(iter(files.items())), channel)
        missing = f"channel {channel} is missing" if channel else "the image without a channel's name is missing"
        problems.append(Problem(case, f"{missing}; expected {expected.name}"))
        stack.append(expected)
    return tuple(stack)


def _sister(known_channel: str, known: Path, channel: str) -> Path:
    """The path of another channel, by the name of one that is there: `c1_t2` beside `c1_t1`, or beside `c1`."""
    text, ending = stem(known), image_ending(known)
    front, told, behind = text.rpartition(known_channel) if known_channel else ("", "", text)
    if not told:
        name = f"{text}_{channel or 'image'}"
    elif channel:
        name = f"{front}{channel}{behind}"
    else:
        name = f"{front.rstrip('_-. ')}{behind}" or "image"
    return known.with_name(name + ending)


def some_of(names: Iterable[str]) -> str:
    """The first few of them, in their order."""
    several = list(names)
    return ", ".join([*several[:_SHOWN], *(["…"] if len(several) > _SHOWN else [])])


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


def modality_of(name: str) -> str:
    """The modality that a channel's name stands for: CT, PET or MR (whatever is not known is treated like MR).

    A word of the name says it: CT, CT_arterial, PET-SUV. Where words say different things (PET/CT), none does.
    """
    words = {re.sub(r"[^a-z0-9]", "", name.lower()), *re.split(r"[^a-z0-9]+", name.lower())}
    said = {modality for modality, known in _MODALITIES.items() if words & known}
    return said.pop() if len(said) == 1 else "MR"


def without_personal(columns: Mapping[str, Any], notes: set[str]) -> dict[str, Any]:
    """Extra columns of a case without those that name a person; what is left out is noted."""
    personal = {key for key in columns if _PERSONAL.search(key.strip())}
    notes.update(f"column {key!r} may identify a person: left out of the manifest" for key in personal)
    return {key: value for key, value in columns.items() if key not in personal and value not in (None, "")}
