# SPDX-License-Identifier: GPL-2.0-or-later
"""A preview for people: what changes by plugin, guests, what is refused and what is not known."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from tuned_virt.cli.preview_guests import PreviewedGuest
from tuned_virt.core.preview import Knowledge, PreviewedValue, PreviewRemark, SwitchPreview
from tuned_virt.model.guest import printable

INDENT = "    "

ONE_LINE = 1 << 20
"""Columns where the output is no terminal: nothing is folded."""

MOST_NAMED = 4
"""Devices named in one line."""


def show(
    active: Sequence[str],
    names: Sequence[str],
    found: SwitchPreview,
    guests: Sequence[PreviewedGuest],
) -> None:
    """Print it."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else ONE_LINE
    print(f"Now:  {' '.join(active) or 'no profile'}")
    print(f"Then: {' '.join(names)}")
    _values(found.changes, width)
    _guests(guests, width)
    _remarks("Would be refused", found.refused, width)
    _remarks("Not known", found.not_known, width)
    _remarks("Notes", found.notes, width)
    print()
    rest = "1 stays as it is" if found.unchanged == 1 else f"{found.unchanged} stay as they are"
    print(f"{_count(len(found.changes), 'value')} would change, {rest}.")
    hidden = [one for one in found.changes if one.before.knowledge is Knowledge.UNREADABLE]
    if hidden and os.geteuid() != 0:
        print(
            f"{_count(len(hidden), 'value')} cannot be read without root: sudo tuned-virt preview"
        )
    print(f"Nothing has been changed. To switch: tuned-adm profile {' '.join(names)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _values(values: Iterable[PreviewedValue], width: int) -> None:
    by_plugin: dict[str, dict[tuple[str, ...], list[PreviewedValue]]] = {}
    for one in values:
        what = (one.setting, _change(one), _reason(one))
        by_plugin.setdefault(one.plugin, {}).setdefault(what, []).append(one)
    for plugin, alike in by_plugin.items():
        print(f"\n{plugin}")
        rows = [
            (f"{setting}{_devices(some)}", change, reason)
            for (setting, change, reason), some in alike.items()
        ]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for *cells, reason in rows:
            text = "  ".join(f"{cell:{wide}}" for cell, wide in zip(cells, widths))
            _line(f"  {text}", reason, width)


def _devices(some: Sequence[PreviewedValue]) -> str:
    """The devices to which the same happens; of many the first few."""
    names = [one.device for one in some if one.device]
    more = len(names) - MOST_NAMED
    listed = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f" of {listed}" if names else ""


def _change(one: PreviewedValue) -> str:
    """Before and after; the unit is with the number that comes last."""
    before, after = str(one.before), str(one.after)
    if one.unit and after[-1:].isdigit():
        after += f" {one.unit}"
    elif one.unit and before[-1:].isdigit():
        before += f" {one.unit}"
    return f"{before} → {after}"


def _reason(one: PreviewedValue) -> str:
    """The line that wants it, and why."""
    why = one.why or one.after.why
    if one.wanted_by is None:
        return f"({why or 'no longer set'})"
    return f"{one.wanted_by}{f' ({why})' if why else ''}"


def _guests(guests: Sequence[PreviewedGuest], width: int) -> None:
    if not guests:
        return
    print("\nGuests")
    widest = max(len(printable(one.placement.guest)) for one in guests)
    for one in guests:
        name = f"{printable(one.placement.guest):{widest}}"
        _line(f"  {name}  {_where(one)}", f"({printable(one.placement.why)})", width)


def _where(one: PreviewedGuest) -> str:
    """Where a guest's vCPUs would be, or that they stay where they are."""
    placed = one.placement
    if not one.changes:
        return f"unchanged, {placed.kind.value}"
    nodes = ", ".join(map(str, placed.nodes))
    cpus = " ".join(dict.fromkeys(placed.vcpus.values()))
    return f"{placed.kind.value} on node {nodes}, vCPUs on {cpus}"


def _remarks(title: str, remarks: Iterable[PreviewRemark], width: int) -> None:
    lines = list(dict.fromkeys(str(one) for one in remarks))
    if lines:
        print(f"\n{title}")
        for line in lines:
            _line(f"  {line}", "", width)


def _line(text: str, rest: str, width: int) -> None:
    """Both on one line where they fit; else the rest on lines of its own, no word broken."""
    if len(text) + len(rest) + 2 <= width or not rest:
        whole = f"{text}  {rest}".rstrip()
        print(_filled(whole, "", width) if len(whole) > width else whole)
    else:
        print(text.rstrip())
        print(_filled(rest, INDENT * 2, width))


def _filled(text: str, first: str, width: int) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=INDENT * 2,
        break_long_words=False,
        break_on_hyphens=False,
    )
