"""Rows of CSV and TSV files, whatever their separator and encoding."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import DataError


def rows_of(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header and the rows with their line numbers."""
    reader = reader_of(path)
    try:
        rows = [(reader.line_num, {k.strip(): (v or "").strip() for k, v in row.items() if k}) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; is a quotation mark not closed?") from None
    return [name.strip() for name in reader.fieldnames or ()], rows


def reader_of(path: Path) -> csv.DictReader[str]:
    """Reads a table, whose separator is the tab or what the header shows."""
    text, _ = table_text(path)
    separator = max("\t;,", key=text.split("\n", 1)[0].count)
    return csv.DictReader(text.splitlines(), delimiter=separator)


def with_numbered_patients(rows: Sequence[tuple[int, dict[str, str]]], column: str) -> list[tuple[int, dict[str, str]]]:
    """The rows with the values of one column counted in their order; an empty one stays empty."""
    values = dict.fromkeys(row[column] for _, row in rows if row.get(column))
    numbers = {value: f"patient_{i:03d}" for i, value in enumerate(values, 1)}
    return [(line, {**row, column: numbers.get(row.get(column, ""), "")}) for line, row in rows]


def fold_of(text: str) -> int | None:
    """The whole number that a cell holds, also as `1.0`; None for anything else."""
    return int(text.partition(".")[0]) if re.fullmatch(r"[0-9]+(\.0+)?", text) else None


def first_of(header: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that is called by the first of these names that there is, in any case."""
    by_lower = {name.lower(): name for name in reversed(header)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def table_text(path: Path) -> tuple[str, bool]:
    """The text of a table, and whether it had to be read as Windows writes it (in Excel: CSV without "UTF-8")."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # in Excel: "Unicode Text"
        return content.decode("utf-16", errors="replace"), False
    try:
        return content.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), True
