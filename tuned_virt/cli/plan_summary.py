# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan comes to: how many guests are placed, and which get fewer cores by it."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tuned_virt.cli import table
from tuned_virt.model.guest import Guest, printable
from tuned_virt.model.topology import Host
from tuned_virt.placement import Placement, PlacementKind
from tuned_virt.placement.sharing import CoreShare, core_shares

COLUMNS = ("<guest", "vCPUs", "<when it alone is busy", "<when all are")

WIDE = 80

MATTERS = 0.995
"""Guests that keep this part of their cores are not listed."""

PLACED = "placed"
ELSEWHERE = ("placed by owners or other managers", "left as they are")

LACKING = {
    "for lack of huge pages": "huge pages",
    "for lack of memory": "GiB of memory",
    "for lack of CPUs": "has the most",
}
"""Why a guest is not placed → what its reason says then."""

Row = tuple[str, int, str, str]


def placed(placements: Iterable[Placement]) -> str:
    """One line: "16 of 30 guests are placed, 14 are not (14 for lack of CPUs)"."""
    states = Counter(map(_state, placements))
    total, done = sum(states.values()), states.pop(PLACED, 0)
    said = [f"{done} of {total} guests {'is' if done == 1 else 'are'} placed"]
    said += [f"{number} {state}" for state in ELSEWHERE if (number := states.pop(state, 0))]
    if states:
        causes = ", ".join(f"{number} {cause}" for cause, number in sorted(states.items()))
        number = sum(states.values())
        said.append(f"{number} {'is' if number == 1 else 'are'} not ({causes})")
    return ", ".join(said)


def _state(one: Placement) -> str:
    if one.kind is PlacementKind.OWNER:
        return ELSEWHERE[0]
    if one.kind is not PlacementKind.UNPLACED:
        return PLACED
    if one.chosen:
        return ELSEWHERE[1]
    causes = (cause for cause, words in LACKING.items() if re.search(words, one.why))
    return next(causes, "for other reasons")


def lost_cores(shares: Mapping[str, CoreShare], placements: Iterable[Placement]) -> list[Row]:
    """Rows of a table: placed guests that get fewer cores than nobody being pinned would give."""
    return [
        (
            printable(one.guest),
            share.vcpus,
            _of(share.alone, share.alone_unpinned),
            _of(share.busy, share.busy_unpinned),
        )
        for one in placements
        for share in (shares.get(one.uuid or one.guest),)
        if share and share.kept < MATTERS
    ]


def _of(cores: float, unpinned: float) -> str:
    return f"{cores:.1f} of {unpinned:.1f} ({100 * cores / unpinned:.0f} %)"


def show(host: Host, guests: Iterable[Guest], placements: Collection[Placement]) -> None:
    """Print both."""
    if not placements:
        return
    print("\n" + textwrap.fill(f"{placed(placements)}.", WIDE, subsequent_indent="    "))
    rows = lost_cores(core_shares(host, guests, placements), placements)
    if rows:
        print("\nCores that busy guests get, of those they would get if nobody were pinned:")
        table.show(COLUMNS, rows)


def content(
    host: Host, guests: Iterable[Guest], placements: Iterable[Placement]
) -> list[dict[str, Any]]:
    """The cores of all guests, for programs."""
    known = list(placements)
    shares = core_shares(host, guests, known)
    return [
        {
            "guest": one.guest,
            "uuid": one.uuid,
            "alone": round(share.alone, 3),
            "alone_unpinned": round(share.alone_unpinned, 3),
            "busy": round(share.busy, 3),
            "busy_unpinned": round(share.busy_unpinned, 3),
        }
        for one in known
        for share in (shares.get(one.uuid or one.guest),)
        if share
    ]
