# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt guests` for people: a table, what hurts whom, why, and what mends it."""

from __future__ import annotations

import itertools
import shlex
import textwrap
from collections.abc import Iterator, Sequence

from tuned_virt.cli import table
from tuned_virt.cli.guest_rows import LOCAL, WAITS, GuestProblem, GuestRow, competing, problem
from tuned_virt.kernel import cpuset

COLUMNS = ("<guest", "<kind", "<node", "<vCPUs on", "local %", "<MiB by node", "delay %")
"""They fit 80 columns: what is said in sentences comes below."""

UNREADABLE = "?"
"""In a column, for what cannot be read; "-" is what is not there."""

MOST = 4
"""So many threads that are elsewhere, or commands, are shown of a guest; all where it is named."""

HOME, LINE_END, REST = "\x1b[H", "\x1b[K", "\x1b[J"
"""A terminal's (ECMA-48): go to the first line, erase to the end of this one, and all below."""


def lines(rows: Sequence[GuestRow], columns: int | None) -> list[str]:
    """The table in so many columns, None for any number, then sentences."""
    if not rows:
        return ["no guest is running"]
    told = [line for row in rows for line in _sentences(row, rows, columns)]
    return [*table.lines(COLUMNS, map(_cells, rows), columns), "", *told, *_legend(rows)]


def screen(shown: Sequence[str], columns: int, height: int) -> str:
    """Lines drawn over those that a terminal shows; what is below its last line is counted."""
    ends = list(itertools.accumulate(max(-(-len(line) // columns), 1) for line in shown))
    if ends and ends[-1] >= height:
        kept = max(sum(1 for end in ends if end <= height - 2), 1)
        shown = [*shown[:kept], f"… {len(shown) - kept} more lines"]
    return HOME + "".join(f"{line}{LINE_END}\n" for line in shown) + REST


def _cells(row: GuestRow) -> tuple[object, ...]:
    cpus = frozenset[int]().union(*map(cpuset.parse, row.vcpus.values()))
    by_node = " ".join(f"{node}:{mib}" for node, mib in row.by_node.items())
    return (
        row.guest,
        row.kind,
        cpuset.text(row.nodes) or None,
        cpuset.text(cpus) or _absent(row.threads_error),
        _absent(row.memory_error) if row.local is None else row.local,
        by_node or _absent(row.memory_error),
        _absent(row.delay_error or row.threads_error)
        if row.delay_percent is None
        else row.delay_percent,
    )


def _absent(error: str) -> str | None:
    return UNREADABLE if error else None


def _sentences(row: GuestRow, rows: Sequence[GuestRow], columns: int | None) -> Iterator[str]:
    """Commands stay on one line, to be copied."""
    hurts = "; ".join([*hurting(row), *crowd(row, rows)])
    yield from folded(
        f"{row.guest}: {problem(row).value or row.owner}: {hurts or row.why}", columns
    )
    for command in row.mend[:MOST]:
        yield f"    to mend: {command}"
    if problem(row) is not GuestProblem.NONE and not 0 < len(row.mend) <= MOST:
        name = str(row.pid) if row.guest.startswith("-") else shlex.quote(row.guest)
        yield f"    more: tuned-virt guests {name}"


def folded(text: str, columns: int | None) -> list[str]:
    """A sentence between words; names of others that are longer than a line stay whole."""
    if columns is None or len(text) <= columns:
        return [text]
    return textwrap.wrap(
        text, columns, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def crowd(row: GuestRow, rows: Sequence[GuestRow]) -> Iterator[str]:
    """Who else may run where a guest waits."""
    if row.delay_percent is None or row.delay_percent < WAITS:
        return
    guests, vcpus = competing(row, rows)
    if guests:
        yield f"{vcpus} vCPUs of {guests} other guests may run on its CPUs"
    else:
        yield "no other guest's vCPUs may run on its CPUs"


def hurting(row: GuestRow, most: int | None = MOST) -> Iterator[str]:
    """All that hurts a guest, and what cannot be read of it, in words; so many threads of it."""
    hurt = problem(row)
    if row.ungranted:
        yield f"{row.ungranted} is not granted: {row.why}"
    elif hurt is GuestProblem.UNPLACED:
        yield row.why
    yield from row.drift[:most]
    if most is not None and len(row.drift) > most:
        yield f"{len(row.drift) - most} more threads elsewhere"
    if row.delay_percent is not None and row.delay_percent >= WAITS:
        yield f"a vCPU waited for a CPU {row.delay_percent} % of the time"
    if row.local is not None and row.local < LOCAL:
        yield f"only {row.local} % of its memory is on its nodes"
    if row.threads_error:
        yield f"its threads: {row.threads_error}"
    if row.memory_error:
        yield f"the location of its memory: {row.memory_error}"
    if row.delay_error:
        yield f"its delay: {row.delay_error}"


def _legend(rows: Sequence[GuestRow]) -> Iterator[str]:
    """What the column says of which time."""
    seconds = next((row.interval_s for row in rows if row.interval_s is not None), None)
    if seconds is not None:
        yield ""
        yield (
            f"delay %: of the last {seconds:g} s, the part that its most delayed vCPU waited"
            " for a CPU"
        )
