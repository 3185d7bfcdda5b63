"""HTML document that loads nothing from anywhere: style and script inline, a strict content-security policy."""

from __future__ import annotations

import base64
import hashlib

from pipeline.reporting.html_builder import tag, verbatim


def document(title: str, body: object, style: str, script: str) -> str:
    """An HTML document that may load nothing: only this very style and script and embedded pictures are let in."""
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", verbatim(style)),
    )
    page = tag("html", head, tag("body", body, tag("script", verbatim(script))), lang="en")
    return f"<!doctype html>\n{page}\n"


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
