"""HTML tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.reporting.html_builder import Html, tag


def table(columns: Sequence[object], rows: Iterable[Sequence[object]], class_: str = "") -> Html:
    """A table whose first column heads its rows; a long one scrolls in a box of its own."""
    head = tag("tr", [tag("th", column, scope="col") for column in columns])
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    return tag(
        "div", tag("table", tag("thead", head), tag("tbody", body), class_=class_ or None), class_="scroll", tabindex=0
    )
