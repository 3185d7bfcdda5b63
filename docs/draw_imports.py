"""Draw which package imports which, from the code, into docs/architecture.md.

    python docs/draw_imports.py            writes the picture between the two markers
    python docs/draw_imports.py --check    ends with 1 if the picture there is not the code's

A row is a package, top layer first; it lists the packages that it imports. An import that also follows from another one
in the row (training imports models, and models imports base) is left out, as in a transitive reduction.
"""

from __future__ import annotations

import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- imports: begin -->", "<!-- imports: end -->"


def package_imports(root: str = "pipeline") -> dict[str, set[str]]:
    """Return, for every package and single module directly below `root`, those that it imports."""
    graph = grimp.build_graph(root)
    below = {name.split(".")[1] for name in graph.modules if name != root}
    imports: dict[str, set[str]] = {name: set() for name in below}
    for importer in graph.modules - {root}:
        for imported in graph.find_modules_directly_imported_by(importer) - {root}:
            imports[importer.split(".")[1]].add(imported.split(".")[1])
    return {name: found - {name} for name, found in imports.items()}


def layers(imports: dict[str, set[str]]) -> list[str]:
    """Return the names from the bottom layer to the top one; names that could change places stand by the alphabet."""
    return list(TopologicalSorter({name: sorted(imports[name]) for name in sorted(imports)}).static_order())


def reduced(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the imports without those that follow from others: a transitive reduction of a graph without cycles."""
    reach: dict[str, set[str]] = {}
    for name in layers(imports):
        reach[name] = set().union(*({other} | reach[other] for other in imports[name]))
    return {
        name: {other for other in found if not any(other in reach[third] for third in found - {other})}
        for name, found in imports.items()
    }


def picture(imports: dict[str, set[str]]) -> str:
    """Return the picture as a Mermaid graph, which code hosts draw and people can read as text."""
    order = {name: place for place, name in enumerate(layers(imports))}
    rows = ["```mermaid", "graph TD"]
    for name in sorted(imports, key=lambda name: -order[name]):
        below = sorted(reduced(imports)[name], key=lambda other: -order[other])
        rows += [f"  {name} --> {' & '.join(below)}"] if below else []
    return "\n".join([*rows, "```"])


def main() -> int:
    """Write or check the picture; return the exit code."""
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    wanted = f"{head}{BEGIN}\n{picture(package_imports())}\n{END}{tail}"
    if "--check" in sys.argv:
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
