"""What an image runs by itself, a word a line: `buildah inspect --type image TAG | python docker/as_built.py WHAT`.

WHAT: `entrypoint` or `healthcheck`, each behind the `env` that gives it the image's own environment and folder; or
`cmd`, the arguments where none are given. For verify.sh, which cannot ask an engine to run them.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def words(image: dict[str, Any], what: str) -> list[str]:
    """The words; a SystemExit where the image lacks them or would have a shell take them apart."""
    config = image["Docker"]["config"]
    if what == "cmd":
        return list(config.get("Cmd") or [])
    found = config.get("Entrypoint") if what == "entrypoint" else config.get("Healthcheck", {}).get("Test", [])[1:]
    shell = what == "healthcheck" and config.get("Healthcheck", {}).get("Test", [""])[0] != "CMD"
    if not found or shell:
        raise SystemExit(f"the image has no {what} that runs without a shell")
    return ["/usr/bin/env", "-i", f"--chdir={config.get('WorkingDir') or '/'}", *config.get("Env", []), *found]


if __name__ == "__main__":
    print(*words(json.load(sys.stdin), sys.argv[1]), sep="\n")
