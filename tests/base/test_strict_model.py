"""Records of earlier versions: keys that came later are filled in wherever in the settings they are."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from pipeline.base.strict_model import Absent, StrictModel, fill_absent


class Circle(StrictModel):
    name: Literal["circle"] = "circle"
    radius: float = 1.0
    width: Annotated[float, Absent(0.0)] = 0.5


class Square(StrictModel):
    name: Literal["square"] = "square"
    side: float


class Drawing(StrictModel):
    shape: Annotated[Circle | Square, Field(discriminator="name")] = Circle()
    many: tuple[Circle, ...] = ()
    by_name: dict[str, Circle] = Field(default={})
    maybe: Circle | None = None
    title: str
    size: tuple[int, int] = (3, 4)


def test_defaults_and_declared_values_are_filled_in_as_json() -> None:
    assert fill_absent(Drawing, {"title": "x"}) == {
        "title": "x",
        "shape": {"name": "circle", "radius": 1.0, "width": 0.5},
        "many": [],
        "by_name": {},
        "maybe": None,
        "size": [3, 4],
    }


@pytest.mark.parametrize(
    "place",
    [{"shape": {}}, {"many": [{}, {}]}, {"by_name": {"a": {}}}, {"maybe": {}}],
    ids=lambda place: next(iter(place)),
)
def test_a_key_deep_inside_counts_as_it_is_declared(place: dict) -> None:
    """A section that stands in the record was written before there was a `width`: without one."""

    def with_name(value: object) -> object:
        if isinstance(value, dict):
            return {key: with_name(item) for key, item in value.items()} or {"name": "circle", "radius": 2.0}
        return [with_name(item) for item in value] if isinstance(value, list) else value

    filled = Drawing.from_record({"title": "x", **with_name(place)})  # type: ignore[dict-item]
    circles = [filled.shape, *filled.many, *filled.by_name.values(), *([filled.maybe] if filled.maybe else [])]
    written = [circle for circle in circles if isinstance(circle, Circle) and circle.radius == 2.0]
    assert written and all(circle.width == 0.0 for circle in written)


def test_the_chosen_kind_is_told_by_its_name() -> None:
    assert fill_absent(Drawing, {"title": "x", "shape": {"name": "square", "side": 2}})["shape"] == {
        "name": "square",
        "side": 2,
    }


def test_what_is_required_stays_missing_and_what_is_unknown_stays_unknown() -> None:
    assert "title" not in fill_absent(Drawing, {})
    with pytest.raises(ValidationError, match="titel"):
        Drawing.from_record({"title": "x", "titel": "y"})


@given(st.builds(Drawing, title=st.text(), shape=st.builds(Circle, radius=st.floats(0, 9), width=st.floats(0, 9))))
def test_a_record_of_today_is_left_as_it_is(drawing: Drawing) -> None:
    record = drawing.model_dump(mode="json")
    assert fill_absent(Drawing, record) == record
    assert Drawing.from_record(record) == drawing
