# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of a report: what a cell shows, what it is sorted by, and how bad it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tuned_virt.cli import page
from tuned_virt.frozen_dataclasses import dataclass

NONE = "–"
"""What is not there or not known, as a cell shows it."""

NUMBER, WIDE = "number", "wide"


@dataclass(frozen=True)
class Column:
    """A column.

    meaning  of its title, in a sentence
    kind     "number" is to the right, "wide" has sentences
    sorted   how the table is sorted by it at first: ascending, descending or ""
    """

    title: str
    meaning: str = ""
    kind: str = ""
    sorted: str = ""


@dataclass(frozen=True)
class TableCell:
    """A cell.

    text      what it shows
    sort      what it is sorted by, None for the text
    level     error, warning, good or ""
    lines     further sentences; commands: to copy
    """

    text: str
    sort: float | str | None = None
    level: str = ""
    lines: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableRow:
    """A table's row; `problem`: whether it is one to look at."""

    cells: tuple[TableCell, ...]
    problem: bool = False


@dataclass(frozen=True)
class Table:
    """A table; `problems` is what the box is called that leaves out rows without a problem."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    problems: str = ""


def table(
    identifier: str,
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Any]],
) -> Table:
    """Of plain values; a row's cells may be `TableCell`s."""
    made = tuple(TableRow(tuple(map(cell, row))) for row in rows)
    return Table(identifier, caption, tuple(columns), made)


def counted(number: int, what: str) -> str:
    """A number of things, in words: 1 guest, 2 guests."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def when(text: str) -> TableCell:
    """A time as JSON has it, as people read it."""
    return TableCell(page.moment(text), text)


def cell(value: Any) -> TableCell:
    """Of a plain value: None is what is not there, and is sorted last."""
    if isinstance(value, TableCell):
        return value
    if value is None or value == "":
        return TableCell(NONE, "")
    if isinstance(value, (list, tuple)):
        return TableCell(", ".join(map(str, value)) or NONE)
    return TableCell(str(value))
