"""Prints what an image was built from: variant, source revision, Python, and every installed package."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import distributions, version


def main(base: str, revision: str) -> None:
    """One `key: value` a line, packages sorted by name."""
    print(f"segpipe: {version('segpipe')}")
    print(f"base: {base}")
    print(f"git: {revision}")
    print(f"python: {platform.python_version()}")
    print(f"platform: {platform.machine()}")
    for name, found in sorted((item.metadata["Name"], item.version) for item in distributions()):
        print(f"package: {name}=={found}")


if __name__ == "__main__":
    main(*sys.argv[1:])
