"""Names and values of structures, as descriptors and people write them down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

ONLY_BACKGROUND_0 = (
    "background is the value 0 alone; set the other values to 0 in the label maps, or declare them as a structure, "
    "such as other=2+3"
)


@dataclass(frozen=True)
class LabelNames:
    """structures: name to its label values (several make a region), background left out, in output order."""

    structures: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignore_value: int | None = None

    @property
    def overlapping(self) -> bool:
        """True where one label value belongs to more than one structure."""
        return any(set(a) & set(b) for a, b in combinations(self.structures.values(), 2))

    @property
    def values(self) -> set[int]:
        """Every declared value, the ignore value included, background left out."""
        own = {value for values in self.structures.values() for value in values}
        return own | ({self.ignore_value} if self.ignore_value is not None else set())
