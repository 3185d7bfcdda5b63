"""Asks a running service as its users would: `python docker/ask_service.py URL SCAN SEGMENTATION`.

Waits until it is ready, posts the scan, writes the segmentation, and looks at /health, /metrics and the page. Ends with
1 and a sentence where something is not as docker/README.md says.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

_PATIENCE_S = 60.0


def main(url: str, scan: Path, segmentation: Path) -> int:
    """The exit code."""
    if not _ready(url):
        print(f"{url}/ready: not ready within {_PATIENCE_S:.0f} s")
        return 1
    request = urllib.request.Request(f"{url}/predict", data=scan.read_bytes(), method="POST")  # noqa: S310, our own service
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        segmentation.write_bytes(answer.read())
    for address, expected in (("/health", b""), ("/metrics", b"segpipe"), ("/model", b"labels"), ("/", b"<html")):
        with urllib.request.urlopen(url + address, timeout=10) as answer:  # noqa: S310
            if answer.status != 200 or expected not in answer.read().lower():
                print(f"{url}{address}: status {answer.status}, without {expected.decode()!r}")
                return 1
    return 0


def _ready(url: str) -> bool:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:  # noqa: S310
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
