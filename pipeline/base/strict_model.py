"""Base class of every settings class: frozen, no unknown keys, finite numbers, readable by later versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python


class StrictModel(BaseModel):
    """A frozen settings value that refuses unknown keys.

    Raises pydantic's ValidationError; `pipeline.config` turns that into a ConfigError with line numbers.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
    )

    entry_version: ClassVar[int] = 1
    """Version of a table entry (a loss, a network). It rises when the entry's results change; it enters a stage's
    request only above 1."""

    @classmethod
    def from_record(cls, values: Any) -> Self:
        """Validate values that this or an earlier version wrote to a file; keys that came later are filled in."""
        return cls.model_validate(fill_absent(cls, values))


@dataclass(frozen=True)
class Absent:
    """Declares, next to a field, the value that a record without the key stands for.

    Needed where that is not the field's default: `overlap: Annotated[float, Absent(0.5)] = 0.25` when windows
    overlapped by 0.5 before there was a key.
    """

    value: Any


def fill_absent(model: type[BaseModel], values: Any) -> Any:
    """Return recorded values with every key that the record does not have.

    Args:
        model: The settings class that the values belong to.
        values: JSON values as a record holds them.

    Returns:
        The values, where a missing key has the value that its field declares with `Absent`, else the field's default
        as JSON. A required field that declares nothing stays missing.
    """
    if not isinstance(values, Mapping):
        return values
    filled = dict(values)
    for name, field in model.model_fields.items():
        declared = next((extra for extra in field.metadata if isinstance(extra, Absent)), None)
        if name in filled:
            filled[name] = _fill_nested(field.annotation, filled[name])
        elif declared is not None:
            filled[name] = to_jsonable_python(declared.value)
        elif not field.is_required():
            filled[name] = to_jsonable_python(field.get_default(call_default_factory=True))
    return filled


def _fill_nested(annotation: Any, value: Any) -> Any:
    """Fill the settings inside a value: a section, one of several choices, or a list or mapping of sections."""
    if isinstance(value, list):
        lists = [member for member in members(annotation) if get_origin(member) in (tuple, list)]
        parts = tuple(part for member in lists for part in get_args(member) if part is not ...)
        return [_fill_nested(Union[parts], item) for item in value] if parts else value  # noqa: UP007, at run time
    if not isinstance(value, Mapping):
        return value
    classes = [member for member in members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)]
    if chosen := [one for one in classes if len(classes) == 1 or tag_of(one) == value.get("name")]:
        return fill_absent(chosen[0], value)
    inner = [get_args(member)[1] for member in members(annotation) if get_origin(member) is dict]
    return {key: _fill_nested(inner[0], item) for key, item in value.items()} if inner else value


def tag_of(model: type[BaseModel]) -> Any:
    """The `name` by which a model is chosen among others; None where it has none."""
    name = model.model_fields.get("name")
    return get_args(name.annotation)[0] if name is not None and get_origin(name.annotation) is Literal else None


def members(annotation: Any) -> Iterable[Any]:
    """The members of a union, through Annotated."""
    if get_origin(annotation) is Annotated:
        yield from members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation
