"""`dataset.json`, as the Decathlon, MONAI and nnU-Net write it: read once, leniently in form, strictly in type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.base.files import read_json
from pipeline.dataset.loaded_cases import Channel
from pipeline.layouts.channel_modality import modality_of
from pipeline.layouts.label_names import ONLY_BACKGROUND_0, LabelNames

NAME = "dataset.json"


def _numbered(given: Any) -> Any:
    """`"MRI"` and `["T1", "T2"]` as `{0: "MRI"}` and `{0: "T1", 1: "T2"}`."""
    if isinstance(given, str):
        return {0: given}
    return dict(enumerate(given)) if isinstance(given, list) else given


def _item(given: Any) -> Any:
    """A plain path as `{"image": [path]}`, and a single image as a list of one."""
    item = {"image": given} if isinstance(given, (str, list)) else given
    if isinstance(item, dict) and isinstance(item.get("image"), str):
        return item | {"image": [item["image"]]}
    return item


class Item(BaseModel):
    """A listed case; what is not known (site, scanner, ...) is kept as extra columns."""

    model_config = ConfigDict(extra="allow")
    image: tuple[str, ...] = Field(min_length=1)
    label: str | None = None
    fold: int | None = Field(default=None, ge=0)


class Listed(BaseModel):
    """A case under nnU-Net's `dataset`."""

    images: tuple[str, ...] = Field(min_length=1)
    label: str | None = None


Items = tuple[Annotated[Item, BeforeValidator(_item)], ...]


class DatasetJson(BaseModel):
    """The keys that are used; all others (such as the misspelt `relase`) are left alone."""

    name: str = ""
    description: str = ""
    reference: str = ""
    licence: str = Field(default="", validation_alias=AliasChoices("licence", "license"))
    channel_names: Annotated[dict[int, str], BeforeValidator(_numbered)] = Field(
        default={}, validation_alias=AliasChoices("channel_names", "modality")
    )
    labels: dict[str, Any] = {}
    training: Items = ()
    validation: Items = ()
    testing: Items = Field(default=(), validation_alias=AliasChoices("test", "testing"))
    num_training: int | None = Field(default=None, validation_alias="numTraining")
    num_test: int | None = Field(default=None, validation_alias="numTest")
    dataset: dict[str, Listed] = {}
    regions_class_order: tuple[int, ...] | None = None

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Channels in the order of their numbers, with names that differ; empty where none is named."""
        names = distinct([name for _, name in sorted(self.channel_names.items())])
        return tuple(Channel(name=name, modality=modality_of(name)) for name in names)

    def labelling(self, path: Path, labelled: bool) -> LabelNames | None:
        """The declared labels, in whichever direction they are written; None where there are none.

        labelled: some case has a label map, so that a structure must be declared; else the background alone will do.
        """
        words = {str(word).strip().lower() for word in (*self.labels, *self.labels.values())}
        if not self.labels or (not labelled and words == {"0", "background"}):
            return None
        return labels_from_dataset_json(self.labels, str(path))


def read_dataset_json(path: Path) -> DatasetJson:
    """Reads a dataset.json; a DataError lists every value that cannot be used, with its place."""
    try:
        return DatasetJson.model_validate(read_json(path))
    except ValidationError as error:
        problems = [Problem(".".join(map(str, e["loc"])) or path.name, e["msg"]) for e in error.errors()]
        raise DataError(problem_list(str(path), problems)) from None


def distinct(names: Sequence[str]) -> list[str]:
    """Names made unequal by a number where they repeat (a list may call two channels `MRI`)."""
    return [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names)]


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
                raise DataError(f"{where}: label {name!r} is {given!r}; {ONLY_BACKGROUND_0}")
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


def labels_to_dataset_json(values: tuple[int, ...]) -> int | list[int]:
    """A structure's values as JSON: a plain number unless it is a region."""
    return values[0] if len(values) == 1 else list(values)


def _values(given: Any, where: str) -> tuple[int, ...]:
    values = given if isinstance(given, list) else [given]
    numbers = [int(value) if isinstance(value, str) and value.strip().isdigit() else value for value in values]
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise DataError(f"{where} is {given!r}; it must be a whole number from 0, or a list of them for a region")
    return tuple(numbers)
