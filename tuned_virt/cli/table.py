# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables: in a terminal folded between words, elsewhere a row on one line."""

from __future__ import annotations

import itertools
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

GAP = "  "


def show(titles: Iterable[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under titles, a column to the left where its title begins with "<"; None is "-".

    Cells may hold names from others: they are printed as they are.
    """
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(*lines(list(titles), rows, columns), sep="\n")


def lines(
    titles: Sequence[str], rows: Iterable[Sequence[object]], columns: int | None
) -> Iterable[str]:
    """The table in so many columns, None for any number; no word is ever cut."""
    left = [title.startswith("<") for title in titles]
    table = [[title.lstrip("<") for title in titles]]
    table += [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = _widths(table, columns)
    for row in table:
        folded = [_folded(cell, width) for cell, width in zip(row, widths)]
        for parts in itertools.zip_longest(*folded, fillvalue=""):
            cells = map(_padded, parts, widths, left)
            yield GAP.join(cells).rstrip()


def _widths(table: list[list[str]], columns: int | None) -> list[int]:
    """Of each column; where they are too many, those of the widest that can be folded shrink."""
    by_column = list(zip(*table))
    widths = [max(map(_width, cells)) for cells in by_column]
    least = [max(_width(word) for cell in cells for word in _words(cell)) for cells in by_column]
    while columns is not None and sum(widths) + len(GAP) * (len(widths) - 1) > columns:
        folding = [at for at, width in enumerate(widths) if width > least[at]]
        if not folding:
            break
        widths[max(folding, key=lambda at: widths[at])] -= 1
    return widths


def _words(text: str) -> list[str]:
    return text.split() or [""]


def _folded(text: str, width: int) -> list[str]:
    """A cell's lines; one that fits keeps all its spaces."""
    if _width(text) <= width:
        return [text]
    found = [""]
    for word in _words(text):
        longer = f"{found[-1]} {word}".lstrip()
        if _width(longer) <= width:
            found[-1] = longer
        else:
            found.append(word)
    return found


def _padded(text: str, width: int, left: bool) -> str:
    space = " " * (width - _width(text))
    return f"{text}{space}" if left else f"{space}{text}"


def _width(text: str) -> int:
    """Columns of a terminal: East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )
