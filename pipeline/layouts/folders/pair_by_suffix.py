"""Files paired although label maps have an ending of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.layouts.folders.channel_grouping import as_case
from pipeline.layouts.folders.file_names import Name, without_folders
from pipeline.layouts.folders.folders_go_together import folders_go_together
from pipeline.layouts.folders.name_vocabulary import is_other_scan
from pipeline.layouts.folders.pair_by_prefix import pair_by_prefix


def pair_by_suffix(names: Sequence[Name]) -> Iterator[Sequence[Name]]:
    """Without the word that all label maps end with, and no image does: `c1_gd` as that of `c1`, or of `c1_t1`.

    None where the word tells scans of one person apart (`c1_left`, `c1_followup`), or is one label map's alone.
    """
    ending = _common_ending([name.key.rsplit("/", 1)[-1].split("_") for name in names if name.is_label])
    if not ending:
        return
    cut = [replace(name, key=name.key.removesuffix(f"_{ending}")) if name.is_label else name for name in names]
    for guess in (cut, without_folders(cut) if folders_go_together(cut) else []):
        yield pair_by_prefix(guess)
        yield guess
        whose = {name.key: name.shared_id for name in guess if name.channel}
        yield [as_case(name, whose) for name in guess]


def _common_ending(labels: Sequence[Sequence[str]]) -> str:
    """The words that all of several label maps end with, up to one that tells scans apart."""
    ending: list[str] = []
    for last in zip(*(reversed(words[1:]) for words in labels), strict=False):
        if len(labels) < 2 or len(set(last)) > 1 or is_other_scan(last[0]) or last[0].isdigit():
            break
        ending.insert(0, last[0])
    return "_".join(ending)
