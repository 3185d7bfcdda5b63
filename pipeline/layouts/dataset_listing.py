"""Listings of data sets: what a layout's reader finds in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.base.errors import Problem
from pipeline.dataset.loaded_cases import Channel
from pipeline.layouts.label_names import LabelNames

Split = Literal["training", "testing"]
_SHOWN = 5


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


def some_of(names: Iterable[str]) -> str:
    """The first few of them, in their order."""
    several = list(names)
    return ", ".join([*several[:_SHOWN], *(["…"] if len(several) > _SHOWN else [])])
