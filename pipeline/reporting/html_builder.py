"""HTML and SVG as values that cannot be written unescaped: plain strings are text, only `Html` is markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape as _escape

_VOID = frozenset({"meta", "br", "img", "input", "path", "line", "rect", "circle", "image", "polygon"})


class Html(str):
    """Markup. Made by `tag`, `text` and `join`; everything else is escaped when it enters a page."""

    __slots__ = ()


Child = object
"""What may stand in an element: Html as it is, None as nothing, anything else as escaped text, or a list of these."""


def text(value: object) -> Html:
    """`value` as escaped text; Html stays as it is and None is nothing."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else _escape(str(value), quote=True))


def join(children: Iterable[Child], separator: str = "") -> Html:
    """Children one after the other, each escaped unless it is Html."""
    return Html(text(separator).join(_flat(children)))


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """An element. `class_` is class, other underscores become hyphens; an attribute of None or False is left out.

    No attribute may be an event handler or a style: the page's content security policy would refuse both.
    """
    written = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if key == "style" or key.startswith("on"):
            raise AssertionError(f"<{name} {key}=…> would be refused by the content security policy")
        if value is True:
            written.append(key)
        elif value is not None and value is not False:
            written.append(f'{key}="{text(str(value))}"')
    start = " ".join(written)
    if name in _VOID and not children:
        return Html(f"<{start}/>")
    return Html(f"<{start}>{join(children)}</{name}>")


def verbatim(source: str) -> Html:
    """Markup that this program itself ships, such as the text of a style sheet or a script. Never for data."""
    return Html(source)


def _flat(children: Iterable[Child]) -> Iterable[Html]:
    for child in children:
        if isinstance(child, (list, tuple)):
            yield from _flat(child)
        else:
            yield text(child)
