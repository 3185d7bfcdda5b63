"""Names of BIDS files: entities such as sub-01, and suffixes such as T1w."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.io.image_file_names import stem

OF_DERIVATIVES = {"space", "desc", "label", "seg", "atlas", "res", "den", "hemi"}
_OF_A_CASE = {"sub", "ses", "run"}


@dataclass(frozen=True)
class BidsScan:
    """A BIDS file name: its entities (`sub-01` as ("sub", "01")) and its suffix (T1w, dseg, ...)."""

    path: Path
    entities: tuple[tuple[str, str], ...]
    suffix: str

    def key(self, whole: bool) -> str:
        """What is common to a case's files: subject, session and run; all entities of the scan where `whole`."""
        return "_".join(f"{name}-{value}" for name, value in self.entities if names_a_case(name, whole))

    def entity(self, name: str) -> str:
        return dict(self.entities).get(name, "")

    @property
    def structure(self) -> str:
        """What a mask is of: `HC`, `HC_L` of one hemisphere."""
        return "_".join(filter(None, (self.entity("label"), self.entity("hemi")))) or "structure"


def parse_scan(path: Path) -> BidsScan | None:
    """The parsed name, or None where it is not one of BIDS."""
    *entities, suffix = stem(path).split("_")
    pairs = tuple((name, value) for name, dash, value in (entity.partition("-") for entity in entities) if dash)
    if len(pairs) != len(entities) or not pairs or pairs[0][0] != "sub" or not suffix:
        return None
    return BidsScan(path, pairs, suffix)


def names_a_case(entity: str, whole: bool) -> bool:
    return entity not in OF_DERIVATIVES if whole else entity in _OF_A_CASE
