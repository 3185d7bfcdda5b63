"""Nothing that comes from data can become markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from pipeline.reporting.html_builder import Html, join, tag, text

HOSTILE = """<script>alert(1)</script>"'&<img src=x onerror=alert(1)>"""


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def _parsed(markup: str) -> _Seen:
    seen = _Seen()
    seen.feed(markup)
    seen.close()
    return seen


def test_text_and_attributes_come_back_as_they_went_in():
    seen = _parsed(tag("p", HOSTILE, [HOSTILE, tag("b", HOSTILE)], title=HOSTILE))
    assert [name for name, _ in seen.tags] == ["p", "b"]
    assert seen.tags[0][1] == {"title": HOSTILE}
    assert seen.words == 3 * HOSTILE


def test_markup_is_not_escaped_twice_and_absent_values_leave_nothing():
    inner = tag("b", "x & y")
    assert text(inner) is inner
    assert tag("p", inner, None, class_=None, hidden=False) == "<p><b>x &amp; y</b></p>"
    assert tag("input", type="search", hidden=True) == '<input type="search" hidden/>'
    assert join(["<", tag("i")], " & ") == "&lt; &amp; <i></i>"
    assert isinstance(join([]), Html)


@pytest.mark.parametrize("attribute", ["style", "onclick"])
def test_what_the_content_security_policy_refuses_cannot_be_written(attribute: str):
    with pytest.raises(AssertionError, match="content security policy"):
        tag("p", **{attribute: "x"})
