"""Reports of faults: lines for the terminal, JSON and an HTML page."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from html import escape

from pipeline.dataset.checks.faults import SEVERITIES, Fault, Severity

log = logging.getLogger(__name__)

_BLOCK_FROM = 6
_MEANING = {
    "fatal": "the case cannot be used as it is",
    "fixable": "the case is used, by a stated rule; look whether the rule is right",
    "warning": "the case is used; it is unlike the others",
}


def in_order(faults: Sequence[Fault]) -> list[Fault]:
    """The fatal ones first, otherwise as found."""
    return sorted(faults, key=lambda fault: SEVERITIES.index(fault.severity))


def lines(faults: Sequence[Fault]) -> list[tuple[Severity, str]]:
    """What to show on screen, fatal first: a line per fault, and one block for a fault that many files share."""
    groups: dict[tuple[str, ...], list[Fault]] = {}
    for fault in in_order(faults):
        groups.setdefault((fault.severity, fault.code, fault.found, fault.cure), []).append(fault)
    shown: list[tuple[Severity, str]] = []
    for group in groups.values():
        first = group[0]
        if len(group) < _BLOCK_FROM:
            shown += [(fault.severity, str(fault)) for fault in group]
            continue
        shown.append((first.severity, f"{first.severity:<7}  {len(group)} times: {first.found}; {first.cure}"))
        shown += [(fault.severity, f"         {fault.case}  {fault.file}".rstrip()) for fault in group]
    return shown


def fault_summary(faults: Sequence[Fault], cases: int) -> str:
    """One line with the count of each severity."""
    counts = Counter(fault.severity for fault in faults)
    listing = ", ".join(f"{counts[severity]} {severity}" for severity in SEVERITIES)
    return f"checked {cases} cases: {listing if faults else 'no faults'}"


def as_json(faults: Sequence[Fault]) -> list[dict[str, str]]:
    """For `faults.json` and `segpipe check --json`."""
    return [asdict(fault) for fault in faults]


def as_page(faults: Sequence[Fault], cases: int, title: str) -> str:
    """One HTML page, without anything from elsewhere, for `segpipe check --html`."""
    rows = "\n".join(
        f'<tr class="{fault.severity}"><td>{fault.severity}</td>'
        + "".join(f"<td>{escape(text)}</td>" for text in (fault.case, fault.file, fault.found, fault.cure))
        + "</tr>"
        for fault in in_order(faults)
    )
    meanings = "".join(f"<dt>{severity}</dt><dd>{_MEANING[severity]}</dd>" for severity in SEVERITIES)
    table = f"<table><thead><tr>{_HEAD}</tr></thead><tbody>\n{rows}\n</tbody></table>" if faults else ""
    heading = f"<h1>{escape(title)}</h1><p>{escape(fault_summary(faults, cases))}</p>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{heading}<dl>{meanings}</dl>{table}</body></html>\n"
    )


_HEAD = "".join(f"<th>{name}</th>" for name in ("severity", "case", "file", "found", "cure"))
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; color: #1b1f24 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .4rem .6rem }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem } dt { font-weight: 600 } dd { margin: 0 }
.fatal td:first-child { color: #b3261e; font-weight: 600 } .fixable td:first-child { color: #8a5a00; font-weight: 600 }
"""


def log_faults(faults: Sequence[Fault], cases: int) -> None:
    """Every fault on screen, the fatal ones first, with its cure."""
    for severity, line in lines(faults):
        log.log(logging.WARNING if severity == "fatal" else logging.INFO, "%s", line)
    log.info("%s", fault_summary(faults, cases))
