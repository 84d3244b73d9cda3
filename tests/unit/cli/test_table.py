# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables fold between words in a terminal, and not at all elsewhere."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.cli import table

TITLES = ("<guest", "MiB", "<why")
LONG = "a-guest-of-a-department-with-a-long-name"
PATH = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"
ROWS = [(LONG, 4096, "guest_other=keep is set by the profile"), ("web", None, f"{PATH} is 0")]


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(("<a", "b"), [("[bold]x[/bold]  :smile:", None), ("y" * 90 + "z", 1)])
    assert capsys.readouterr().out.splitlines() == [
        f"a{' ' * 92}b",
        f"[bold]x[/bold]  :smile:{' ' * 70}-",
        f"{'y' * 90}z  1",
    ]


def test_in_a_pipe_a_row_is_a_line_however_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a CI system has colours forced."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    table.show(TITLES, [*ROWS, ("x", 1, "many words " * 2000)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[1] == f"{LONG}  4096  {ROWS[0][2]}"


def test_a_terminal_is_asked_how_wide_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    table.show(TITLES, ROWS[:1])
    assert capsys.readouterr().out == (
        f"guest{' ' * 37} MiB  why\n"
        f"{LONG}  4096  guest_other=keep is set by the\n"
        f"{' ' * 48}profile\n"
    )


@pytest.mark.parametrize("columns", [1, 80, 110, 300])
def test_it_is_as_wide_as_asked_or_as_its_longest_words(columns: int) -> None:
    found = list(table.lines(TITLES, ROWS, columns))
    assert max(map(len, found)) <= max(columns, len(LONG) + len("4096") + len(PATH) + 4)


def test_east_asian_names_take_two_columns_each_and_accents_none() -> None:
    rows = [("\u4ed5\u4e8b", "x"), ("cafe\u0301", "y")]
    assert list(table.lines(("<a", "<b"), rows, None)) == [
        "a     b",
        "\u4ed5\u4e8b  x",
        "cafe\u0301  y",
    ]


@given(
    st.lists(st.tuples(*[st.text("ab-=/ \u6587", max_size=30)] * 3), max_size=4),
    st.integers(1, 90),
)
def test_no_word_is_ever_cut(rows: list[tuple[str, str, str]], columns: int) -> None:
    words = " ".join(table.lines(TITLES, rows, columns)).split()
    assert {word for row in rows for cell in row for word in cell.split()} <= set(words)
