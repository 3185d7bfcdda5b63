"""The browser pages of `segpipe view` and of the service: their files, shipped once, and the headers they come with.

Nothing is fetched from elsewhere, no script or style stands in a page itself, and no page may be framed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

SAFE_HEADERS = {
    # NiiVue carries its font as a data: address that it fetches, and draws bitmaps from blob: addresses.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self' data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
_SHARED = {
    "niivue.js": "niivue/niivue.umd.js",
    "licences.txt": "niivue/LICENSES.txt",
    "look.css": "shared/look.css",
    "scene.js": "shared/scene.js",
}
VIEWER = {**_SHARED, "": "viewer/viewer.html", "viewer.css": "viewer/viewer.css", "viewer.js": "viewer/viewer.js"}
"""What `segpipe view` offers: the name in the address to the file below `assets`."""
DROP = {**_SHARED, "": "drop/drop.html"} | {
    name: f"drop/{name}" for name in ("drop.css", "drop.js", "files.js", "zip.js", "result.js", "card.js")
}
"""What the service's page offers."""


@dataclass(frozen=True)
class Asset:
    """A shipped file as it is sent; `tag` changes with its bytes."""

    kind: str
    body: bytes
    tag: str


@cache
def asset(name: str) -> Asset:
    """The file of one of the tables above."""
    body = files("pipeline.web").joinpath("assets", name).read_bytes()
    return Asset(_KINDS[name.rpartition(".")[2]], body, f'"{sha256(body).hexdigest()[:32]}"')
