"""The option --labels: names and values of structures as a user types them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.base.errors import ConfigError, DataError
from pipeline.layouts.formats.dataset_json import labels_from_dataset_json
from pipeline.layouts.label_names import ONLY_BACKGROUND_0, LabelNames


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
        refuse_other_background(part, name.strip(), labels[name.strip()])
    try:
        return labels_from_dataset_json(labels, "--labels")
    except DataError as error:
        raise ConfigError(str(error)) from None


def refuse_other_background(part: str, name: str, values: Sequence[int]) -> None:
    """A structure of the value 0 would be dropped, and background of other values would be refused by the checks."""
    if name.lower() == "background" and set(values) != {0}:
        raise ConfigError(f"--labels: {part!r}: {ONLY_BACKGROUND_0}")
    if name.lower() not in {"background", "ignore"} and 0 in values:
        raise ConfigError(
            f"--labels: {part!r}: 0 is the background of every label map and no structure's value; give the value "
            f"that {name} has there, or leave it out"
        )
