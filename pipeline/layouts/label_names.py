"""Names and values of structures, as descriptors and people write them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from pipeline.base.errors import ConfigError, DataError

_ONLY_0 = (
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


def labels_from_dataset_json(labels: Mapping[str, Any], where: str) -> LabelNames:
    """A descriptor's `labels` in either direction: MSD's `{"1": "liver"}` or nnU-Net's `{"liver": 1}`.

    A list of values is a region; the name `ignore` declares the ignore value. Raises a DataError that names `where`.
    """
    by_name: dict[str, Any] = dict(labels)
    if (
        labels
        and all(key.strip().isdigit() for key in labels)
        and all(isinstance(name, str) for name in labels.values())
    ):
        by_name = {}
        for key, name in labels.items():
            by_name.setdefault(name, []).append(int(key))
    structures, ignore = {}, None
    for name, given in by_name.items():
        values = _values(given, f"{where}: label {name!r}")
        if name.lower() == "ignore":
            ignore = values[0]
        elif name.lower() == "background":
            if set(values) != {0}:
                raise DataError(f"{where}: label {name!r} is {given!r}; {_ONLY_0}")
        elif values != (0,):
            structures[name] = values
    if clash := [name for name, values in structures.items() if ignore in values]:
        raise DataError(
            f"{where}: label value {ignore} is both 'ignore' and {', '.join(clash)}; give each its own value"
        )
    for (one, its_values), (other, values) in combinations(structures.items(), 2):
        if set(its_values) == set(values):
            raise DataError(f"{where}: {one!r} and {other!r} have the same values, {list(values)}; correct one of them")
    if not structures:
        raise DataError(f"{where}: 'labels' declares no structure beside the background; add one, e.g. \"liver\": 1")
    return LabelNames(structures, ignore)


def labels_from_option(text: str) -> LabelNames:
    """`liver=1,tumour=2`, regions as `whole=1+2`, the ignore value as `ignore=255`.

    0 is the background and no structure; `background=0` may be said. A ConfigError for anything else.
    """
    labels: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, values = part.partition("=")
        numbers = [number.strip() for number in values.split("+")]
        if not sign or not name.strip() or not all(number.isdigit() for number in numbers):
            raise ConfigError(
                f"--labels: {part!r} is not name=value; write for instance liver=1,whole_tumour=1+2+4,ignore=255"
            )
        if name.strip() in labels:
            raise ConfigError(
                f"--labels: {name.strip()!r} is named twice; join its values with '+', e.g. {name.strip()}=1+2"
            )
        labels[name.strip()] = [int(number) for number in numbers]
        _refuse_other_background(part, name.strip(), labels[name.strip()])
    try:
        return labels_from_dataset_json(labels, "--labels")
    except DataError as error:
        raise ConfigError(str(error)) from None


def _refuse_other_background(part: str, name: str, values: Sequence[int]) -> None:
    """A structure of the value 0 would be dropped, and background of other values would be refused by the checks."""
    if name.lower() == "background" and set(values) != {0}:
        raise ConfigError(f"--labels: {part!r}: {_ONLY_0}")
    if name.lower() not in {"background", "ignore"} and 0 in values:
        raise ConfigError(
            f"--labels: {part!r}: 0 is the background of every label map and no structure's value; give the value "
            f"that {name} has there, or leave it out"
        )


def labels_to_dataset_json(values: tuple[int, ...]) -> int | list[int]:
    """A structure's values as JSON: a plain number unless it is a region."""
    return values[0] if len(values) == 1 else list(values)


def _values(given: Any, where: str) -> tuple[int, ...]:
    values = given if isinstance(given, list) else [given]
    numbers = [int(value) if isinstance(value, str) and value.strip().isdigit() else value for value in values]
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise DataError(f"{where} is {given!r}; it must be a whole number from 0, or a list of them for a region")
    return tuple(numbers)
