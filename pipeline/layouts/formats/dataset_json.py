"""`dataset.json`, as the Decathlon, MONAI and nnU-Net write it: read once, leniently in form, strictly in type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.base.files import read_json
from pipeline.dataset.cases_json import Channel
from pipeline.layouts.channel_modality import modality_of
from pipeline.layouts.label_names import LabelNames, labels_from_dataset_json

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
