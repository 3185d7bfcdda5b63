"""What every record of a benchmark begins with: the command, the machine, the versions; and its table."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def circumstances() -> list[tuple[str, str]]:
    """Date, command, machine and versions, as name and value."""
    from pipeline.base.machine import environment

    found = environment()
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items() if name != "segpipe")
    return [
        ("date", date.today().isoformat()),
        ("command", shlex.join(["python", *[_relative(word) for word in sys.argv]])),
        ("machine", f"{found['cores']} cores of {_processor()}, {_memory_gib():.0f} GiB"),
        ("busy", _load()),
        ("source", _revision()),
        ("versions", f"Python {found['python']}, {versions}"),
    ]


def write_record(
    path: Path, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
    """Writes a page: title, circumstances, table, notes (each a paragraph)."""
    about = "\n".join(f"| {name} | {value} |" for name, value in circumstances())
    head = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    table = f"{head}\n{body}\n\n" if rows else ""
    text = "\n\n".join(notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# {title}\n\n| | |\n| --- | --- |\n{about}\n\n{table}{text}\n", encoding="utf-8")
    print(f"wrote {path}")


def _relative(word: str) -> str:
    path = Path(word)
    return path.relative_to(ROOT).as_posix() if path.is_absolute() and path.is_relative_to(ROOT) else word


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    import psutil

    return psutil.virtual_memory().total / 2**30


def _load() -> str:
    """How many processes wanted a core in the last minutes; this benchmark's own are among them."""
    import os

    one, five, _ = os.getloadavg()
    return f"load average {one:.1f} (1 min), {five:.1f} (5 min), the benchmark included"


def _revision() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "not a checkout"
