"""Label maps of one case by several annotators: told by their names, and refused with patterns that choose one."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.io.image_file_names import stem
from pipeline.layouts.folders.name_vocabulary import words_of, words_without_role

_ANNOTATOR = re.compile(
    r"(?<![a-z0-9])("
    r"(rater|reader|observer|reviewer|annot[a-z]*|expert|radiologist|manual[a-z]*)([_-]?(\d+|[a-z]))?|"
    r"r[_-]?\d+|consensus|staple|auto(matic)?|majority"
    r")(?![a-z0-9])",
    re.I,
)
"""Who drew a label map, as whole words: `rater2`, `reader_A`, `R1`; not the right ventricle, `RV`."""


def without_annotator(name: str) -> tuple[str, bool]:
    """A name's words without those of roles and of who drew it, and whether there were any of the latter."""
    whole = "_".join(words_of(name))
    rest = _ANNOTATOR.sub("", whole)
    return "_".join(words_without_role(rest)), rest != whole


def refuse_several_annotators(case: str, files: Sequence[Path]) -> None:
    """Label files of a case that differ only by who drew them are no structures; one of them is meant, or one person's.

    Only where that is so of all: beside others they are masks, as of instances (KiTS21), which say more.
    """
    by_rest: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_rest[without_annotator(stem(path))[0]].append(path)
    drawn = {path for path in files if without_annotator(stem(path))[1]}
    if not all(len(same) > 1 and drawn & set(same) for same in by_rest.values()):
        return
    names, drawer = ", ".join(sorted(map(stem, files))), _ANNOTATOR.search(stem(min(drawn)))
    pattern = pattern_of(min(files), Path(case).name)
    if drawer is not None and len(by_rest) > 1:  # one person's, of all structures
        pattern = shlex.quote(f"*{drawer.group(0)}*")
    raise DataError(
        f"{case} has {len(files)} label maps by several people ({names}); name those that are meant, for instance "
        f"--label-files {pattern}"
    )


def pattern_of(path: Path, case: str) -> str:
    """What `--label-files` takes for the files that are called so in all cases, as a shell reads it."""
    name = stem(path)
    own = [
        gap
        for gap in re.finditer(r"[_\-. ]+", name)
        if re.match(rf"{re.escape(name[: gap.start()])}([_\-. ]|$)", case) and gap.end() < len(name)
    ]
    pattern = f"*{path.name[own[-1].end() - 1 :]}" if own else f"*/{path.name}"
    return shlex.quote(pattern.replace(",", "?"))  # a comma parts patterns
