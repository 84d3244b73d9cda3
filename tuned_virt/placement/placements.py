# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan's outcomes as placements: cpusets as text, walls where they are safe, warnings."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace

from tuned_virt.kernel import cpuset
from tuned_virt.placement.assignment import Outcome
from tuned_virt.placement.demand import Demand
from tuned_virt.placement.host_capacity import Board
from tuned_virt.placement.model import Kind, Memory, Placement, Plan
from tuned_virt.placement.place import left_alone
from tuned_virt.placement.policy import EmulatorMode, IoThreadMode, MemoryMode

MARGIN = 0.05
"""Part of a node's memory that must stay free beyond a wall's guests: the guide's 9.2 warns that
a node that fills kills."""

LEAST_MARGIN = 256 << 10
"""KiB; the kernel's own needs on a small node."""


@dataclass
class Decided:
    """What is to be put into words, by guest's key.

    fixed      placements that are not ours to make
    kept       placements in force, of guests that keep their places
    untouched  those of them that nothing has changed: taken as they are
    """

    outcomes: Mapping[str, Outcome]
    fixed: Mapping[str, Placement]
    warnings: Iterable[str]
    kept: Mapping[str, Placement]
    untouched: Collection[str] = ()


class Result:
    """Everything decided, put into words."""

    def __init__(self, board: Board, decided: Decided) -> None:
        self.board = board
        self.decided = decided
        self.outcomes = decided.outcomes
        self._shared = [room.node.numbers(room.shared) for room in board.rooms]
        self._housekeeping = [room.node.numbers(room.housekeeping) for room in board.rooms]
        self._texts: dict[tuple[bool, tuple[int, ...]], str] = {}
        self._growth = self._hotplug_growth()
        self._reasons: dict[Hashable, str] = {}
        self.placements = self._built()

    def plan(self) -> Plan:
        """The plan."""
        return Plan(tuple(self.placements.values()), (*self.decided.warnings, *self._loose()))

    def _built(self) -> dict[str, Placement]:
        """By guest's key, in order of name and UUID."""
        made = dict(self.decided.fixed)
        kept, untouched = self.decided.kept, self.decided.untouched
        for key, outcome in self.outcomes.items():
            made[key] = kept[key] if key in untouched else self._placement(key, outcome)
        ordered = sorted(made.items(), key=lambda item: (item[1].guest, item[1].uuid))
        return dict(ordered)

    def _loose(self) -> list[str]:
        placements = self.placements.values()
        loose = [one.guest for one in placements if one.kind is Kind.UNPLACED]
        if loose and any(one.kind is Kind.DEDICATED for one in placements):
            names = ", ".join(loose[:3]) + (f" and {len(loose) - 3} more" if len(loose) > 3 else "")
            return [f"left alone, may run on CPUs dedicated to others: {names}"]
        return []

    # --- cpusets --------------------------------------------------------------------------------

    def _text(self, places: Iterable[int], housekeeping: bool = False) -> str:
        """Undedicated (or housekeeping) CPUs of nodes; the nearest other's where they have none."""
        key = (housekeeping, tuple(places))
        if key not in self._texts:
            self._texts[key] = cpuset.text(self._cpus(key[1], housekeeping))
        return self._texts[key]

    def _cpus(self, places: tuple[int, ...], housekeeping: bool) -> list[int]:
        sets = self._housekeeping if housekeeping else self._shared
        found = [cpu for place in places for cpu in sets[place]]
        if found:
            return found
        table = self.board.grid.distances
        near = sorted(range(len(sets)), key=lambda other: (table[places[0]][other], other))
        return next((sets[place] for place in near if sets[place]), [])

    def _vcpus(self, outcome: Outcome) -> dict[int, str]:
        if outcome.dedicated:
            return {vcpu: str(cpu) for vcpu, cpu in sorted(outcome.cpus.items())}
        if len(outcome.seats) == 1:
            [(place, vcpus)] = outcome.seats.items()
            return dict.fromkeys(vcpus, self._text((place,)))
        texts = {v: self._text((p,)) for p, vcpus in outcome.seats.items() for v in vcpus}
        return dict(sorted(texts.items()))

    def _emulator(self, outcome: Outcome, vcpus: Mapping[int, str]) -> str:
        guest = outcome.wanted.guest
        if guest.owned.emulator:
            return cpuset.text(guest.owned.emulator)
        mode = outcome.wanted.policy.emulator
        if mode is EmulatorMode.VCPU0:
            return vcpus[min(vcpus)]
        return self._text(outcome.seats, housekeeping=mode is EmulatorMode.HOUSEKEEPING)

    def _iothreads(self, outcome: Outcome, emulator: str) -> dict[int, str]:
        guest = outcome.wanted.guest
        texts = {}
        for number, disks in guest.iothreads.items():
            owned = guest.owned.iothreads.get(number)
            texts[number] = (
                cpuset.text(owned) if owned else self._iothread(outcome, disks, emulator)
            )
        return texts

    def _iothread(self, outcome: Outcome, disks: tuple[str, ...], emulator: str) -> str:
        mode = outcome.wanted.policy.iothreads
        if mode is IoThreadMode.EMULATOR:
            return emulator
        if mode is IoThreadMode.HOUSEKEEPING:
            return self._text(outcome.seats, housekeeping=True)
        host, grid = self.board.host, self.board.grid
        nodes = (host.disks.get(disk, host.devices.get(disk, -1)) for disk in disks)
        places = [grid.place[node] for node in nodes if node in grid.place]
        return self._text(places[:1] or outcome.seats)

    # --- memory ---------------------------------------------------------------------------------

    def _hotplug_growth(self) -> dict[int, float]:
        """Bank → KiB that guests there may still be plugged."""
        growth: dict[int, float] = {}
        for outcome in self.outcomes.values():
            guest = outcome.wanted.guest
            if guest.max_memory > guest.memory and outcome.seats:
                for share in outcome.shares:
                    part = share.memory / max(outcome.wanted.whole.memory, 1)
                    more = (guest.max_memory - guest.memory) * part
                    growth[share.bank] = growth.get(share.bank, 0) + more
        return growth

    def _memory(self, outcome: Outcome) -> tuple[Memory | None, str]:
        """Where the memory goes, and why not as the policy asks."""
        mode = outcome.wanted.policy.memory
        if not outcome.wanted.memory_is_ours:
            return None, ""
        banks = sorted({share.bank for share in outcome.shares})
        nodeset = cpuset.text(banks)
        if mode is MemoryMode.MOVE:
            return Memory(mode.value, nodeset, self._cells(outcome)), ""
        full = [bank for bank in banks if not self._spare(bank)]
        if full:
            why = f"no wall, as node {full[0]} has no {100 * MARGIN:.0f} % to spare"
            return Memory(MemoryMode.MOVE.value, nodeset, self._cells(outcome)), why
        return Memory(mode.value, nodeset, self._cells(outcome)), ""

    def _spare(self, bank: int) -> bool:
        margin = max(MARGIN * self.board.host.by_id[bank].memory, LEAST_MARGIN)
        return self.board.banks.memory[bank] - self._growth.get(bank, 0) >= margin

    def _cells(self, outcome: Outcome) -> dict[int, int]:
        """vNUMA cell → node, where each cell is whole on one of several nodes."""
        if not outcome.wanted.cells or outcome.banks:
            return {}
        found = {}
        for cell in outcome.wanted.cells:
            homes = [p for p, vcpus in outcome.seats.items() if set(cell.vcpus) & set(vcpus)]
            if len(homes) == 1:
                found[cell.cell] = self.board.grid.nodes[homes[0]].bank
        return found

    # --- placements -----------------------------------------------------------------------------

    def _placement(self, key: str, outcome: Outcome) -> Placement:
        guest = outcome.wanted.guest
        if not outcome.seats:
            why = self._why_alone(outcome.wanted)
            return Placement(guest.name, guest.uuid, Kind.UNPLACED, (), {}, "", {}, None, why)
        vcpus = self._vcpus(outcome)
        emulator = self._emulator(outcome, vcpus)
        memory, lacking = self._memory(outcome)
        made = Placement(
            guest=guest.name,
            uuid=guest.uuid,
            kind=outcome.kind,
            nodes=tuple(self.board.grid.nodes[place].id for place in outcome.seats),
            vcpus=vcpus,
            emulator=emulator,
            iothreads=self._iothreads(outcome, emulator),
            memory=memory,
            why=f"{outcome.why}; {lacking}" if lacking else outcome.why,
        )
        return _same_or(made, self.decided.kept.get(key))

    def _why_alone(self, wanted: Demand) -> str:
        if wanted.shape not in self._reasons:
            self._reasons[wanted.shape] = left_alone(self.board, wanted)
        return self._reasons[wanted.shape]


def _same_or(made: Placement, kept: Placement | None) -> Placement:
    """The very object in force where nothing but the reason differs; its reason in any case."""
    if kept is None:
        return made
    same = replace(made, why=kept.why)
    return kept if same == kept else same
