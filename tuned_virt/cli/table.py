# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

WIDEST = 10_000
"""Columns where no terminal limits them: what reads a pipe wants a row on one line."""


def show(titles: Iterable[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under titles, a column to the left where its title begins with "<"; None is "-".

    Cells may hold names from others: they are printed as they are.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="")
    for title in titles:
        justify: Literal["left", "right"] = "left" if title.startswith("<") else "right"
        table.add_column(title.lstrip("<"), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDEST
    console.print(table)
