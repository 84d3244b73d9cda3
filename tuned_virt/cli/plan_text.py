# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan for people: a table per node, what changes, why, and the commands that do it by hand."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby

from tuned_virt.cli import plan_summary, table
from tuned_virt.cli.planning_input import PlanningInput
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import cpuset
from tuned_virt.kernel.numa_maps import share
from tuned_virt.model.guest import Guest, printable
from tuned_virt.model.pins import EMULATOR, MEMORY, Pins
from tuned_virt.model.topology import Host
from tuned_virt.placement import Placement, PlacementKind, PlacementPlan
from tuned_virt.plugins.vm_pinning.policy import Persist

WIDE = 80

FLAGS: Mapping[Persist, str] = {
    Persist.LIVE: "--live",
    Persist.CONFIG: "--config",
    Persist.BOTH: "--live --config",
}
"""What virsh is told of where to write."""

GUESTS = ("<guest", "<kind", "<vCPUs", "<on CPUs")
CHANGES = ("<guest", "<what", "<now", "<then")

TYPED = re.compile(r"[A-Za-z_][\w.+-]{0,30}", re.ASCII)
"""Names that can be typed: virsh takes digits for a number of its own, and - for an option."""

SETTLED = 0.95
"""Part of a guest's memory that makes a node its own: what is still elsewhere is not said."""


@dataclass(frozen=True)
class GuestChange:
    """What becomes of threads or memory of a guest.

    what    "vCPU", "IOThread", "emulator", "numatune" or "memory"; number: which of its kind
    before  where it is now, "" where that is not known
    """

    what: str
    number: int | None
    before: str
    after: str


def show(
    gathered: PlanningInput, made: PlacementPlan, persist: Persist, later: Collection[str]
) -> None:
    """Print it; guests in `later` are changed when they start again."""
    _nodes(gathered.host, made.placements)
    plan_summary.show(gathered.host, gathered.guests, made.placements)
    guests, now = {guest.key: guest for guest in gathered.guests}, gathered.now
    changed = [
        (one, list(changes(guests[key], one, now.get(key))))
        for one in made.placements
        for key in (one.uuid or one.guest,)
    ]
    anew = [pair for pair in changed if (pair[0].uuid or pair[0].guest) in later]
    at_once = [pair for pair in changed if pair not in anew]
    if not _changes("Changes:", at_once) and made.placements:
        print("\nNothing changes.")
    _changes("Changes when these guests start again (persist=config):", anew)
    print("\nWhy:" if made.placements else "No guests.")
    for one in made.placements:
        _say(f"{printable(one.guest)}: {printable(one.why)}")
    for warning in made.warnings:
        _say(f"warning: {printable(warning)}")
    typed = [line for one, some in changed for line in commands(one, some, FLAGS[persist])]
    if typed:
        print("\nBy hand:")
        print("\n".join(typed))


def _changes(title: str, changed: Iterable[tuple[Placement, list[GuestChange]]]) -> bool:
    """A table of what changes; whether anything does."""
    rows = [(printable(one.guest), *row) for one, some in changed for row in _grouped(some)]
    if rows:
        print(f"\n{title}")
        table.show(CHANGES, rows)
    return bool(rows)


def _say(text: str) -> None:
    """A sentence, folded; names of others that are longer than a line stay whole."""
    print(
        textwrap.fill(
            text, WIDE, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    )


# --- nodes ----------------------------------------------------------------------------------------


def _nodes(host: Host, placements: Iterable[Placement]) -> None:
    """A table of guests for each node, and one of those that are on none."""
    known = list(placements)
    for node in host.nodes:
        cpus = node.cpus & host.cpus.keys()
        gib = f"{node.memory / 2**20:.1f} GiB"
        print(f"node {node.id}: {len(cpus)} CPUs ({cpuset.text(cpus) or 'none'}), {gib}")
        _guests([_row(one, cpus) for one in known if node.id in one.nodes])
    homeless = [_row(one, frozenset()) for one in known if not one.nodes]
    if homeless:
        print("on no node:")
        _guests(homeless)


def _guests(rows: list[tuple[str, str, str | None, str | None]]) -> None:
    if rows:
        table.show(GUESTS, rows)


def _row(one: Placement, cpus: frozenset[int]) -> tuple[str, str, str | None, str | None]:
    """A guest's vCPUs on a node's CPUs."""
    here = {
        vcpu: own for vcpu, text in one.vcpus.items() for own in (cpuset.parse(text) & cpus,) if own
    }
    taken = frozenset[int]().union(*here.values())
    vcpus, on = cpuset.text(here) or None, cpuset.text(taken) or None
    return printable(one.guest), one.kind.value, vcpus, on


# --- changes --------------------------------------------------------------------------------------


def changes(guest: Guest, placed: Placement, now: Pins | None) -> Iterator[GuestChange]:
    """What differs from now; all of it for a guest that does not run. Nothing of owners' guests."""
    if placed.kind not in {PlacementKind.DEDICATED, PlacementKind.SHARED}:
        return
    for target, cpus in sorted(placed.pins().items(), key=lambda pin: pin[0] == EMULATOR):
        before = now.get(target, "") if now else ""
        if target != MEMORY and before != cpus:
            number = None if target == EMULATOR else target.number
            yield GuestChange(target.part.value, number, before, cpus)
    yield from _memory(guest, placed, now)


def _memory(guest: Guest, placed: Placement, now: Pins | None) -> Iterator[GuestChange]:
    memory = placed.memory
    if memory is None:
        return
    if memory.mode != "move":
        before = now.memory if now else None
        if before != (memory.mode, memory.nodeset):
            after = f"{memory.mode} {memory.nodeset}"
            yield GuestChange("numatune", None, " ".join(before) if before else "", after)
        return
    local = share(guest.resident, cpuset.parse(memory.nodeset))
    if local is not None and local < SETTLED:
        parts = (f"{kib / 2**20:.1f} GiB on {node}" for node, kib in guest.resident.items())
        yield GuestChange("memory", None, ", ".join(parts), f"all on {memory.nodeset}")


def _grouped(some: Iterable[GuestChange]) -> Iterator[tuple[str, str | None, str]]:
    """Rows: threads of one kind that are at one place now, with their CPUs in their order."""
    for (what, before), group in groupby(some, lambda one: (one.what, one.before)):
        members = list(group)
        numbers = [one.number for one in members if one.number is not None]
        after = list(dict.fromkeys(one.after for one in members))
        title = f"{what} {cpuset.text(numbers)}" if numbers else what
        yield title, before or None, " ".join(after)


def commands(one: Placement, some: Iterable[GuestChange], flags: str = "--live") -> Iterator[str]:
    """What an administrator would type for changes; pages that move have no command."""
    name = one.guest if TYPED.fullmatch(one.guest) else shlex.quote(one.uuid or one.guest)
    for change in some:
        if change.what == "numatune":
            mode, _, nodes = change.after.partition(" ")
            yield f"virsh numatune {name} --mode {mode} --nodeset {nodes} {flags}"
        elif change.what != "memory":
            number = "" if change.number is None else f" {change.number}"
            yield f"virsh {change.what.lower()}pin {name}{number} {change.after} {flags}"
