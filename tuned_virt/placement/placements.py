# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan's outcomes as placements: cpusets as text, walls where they are safe, warnings."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace

from tuned_virt.kernel import cpuset
from tuned_virt.placement.assignment import Assignment
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import MemoryPlacement, Placement, PlacementKind, PlacementPlan
from tuned_virt.placement.place import left_alone
from tuned_virt.placement.policy import EmulatorMode, IoThreadMode, MemoryMode

MARGIN = 0.05
"""Part of a node's memory that must stay free beyond a wall's guests: the guide's 9.2 warns that
a node that fills kills."""

LEAST_MARGIN = 256 << 10
"""KiB; the kernel's own needs on a small node."""


@dataclass
class DecidedPlacements:
    """What is to be put into words, by guest's key.

    fixed      placements that are not ours to make
    kept       placements in force, of guests that keep their places
    untouched  those of them that nothing has changed: taken as they are
    """

    assignments: Mapping[str, Assignment]
    fixed: Mapping[str, Placement]
    warnings: Iterable[str]
    kept: Mapping[str, Placement]
    untouched: Collection[str] = ()


class PlacementResult:
    """Everything decided, put into words."""

    def __init__(self, host_capacity: HostCapacity, decided: DecidedPlacements) -> None:
        self.host_capacity = host_capacity
        self.decided = decided
        self.assignments = decided.assignments
        self._shared = [
            node_capacity.node.numbers(node_capacity.shared)
            for node_capacity in host_capacity.node_capacities
        ]
        self._housekeeping = [
            node_capacity.node.numbers(node_capacity.housekeeping)
            for node_capacity in host_capacity.node_capacities
        ]
        self._texts: dict[tuple[bool, tuple[int, ...]], str] = {}
        self._growth = self._hotplug_growth()
        self._reasons: dict[Hashable, str] = {}
        self.placements = self._built()

    def plan(self) -> PlacementPlan:
        """The plan."""
        return PlacementPlan(
            tuple(self.placements.values()), (*self.decided.warnings, *self._loose())
        )

    def _built(self) -> dict[str, Placement]:
        """By guest's key, in order of name and UUID."""
        made = dict(self.decided.fixed)
        kept, untouched = self.decided.kept, self.decided.untouched
        for key, assignment in self.assignments.items():
            made[key] = kept[key] if key in untouched else self._placement(key, assignment)
        ordered = sorted(made.items(), key=lambda item: (item[1].guest, item[1].uuid))
        return dict(ordered)

    def _loose(self) -> list[str]:
        placements = self.placements.values()
        loose = [one.guest for one in placements if one.kind is PlacementKind.UNPLACED]
        if loose and any(one.kind is PlacementKind.DEDICATED for one in placements):
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
        found = [cpu for node_index in places for cpu in sets[node_index]]
        if found:
            return found
        table = self.host_capacity.grid.distances
        near = sorted(range(len(sets)), key=lambda other: (table[places[0]][other], other))
        return next((sets[node_index] for node_index in near if sets[node_index]), [])

    def _vcpus(self, assignment: Assignment) -> dict[int, str]:
        if assignment.dedicated:
            return {vcpu: str(cpu) for vcpu, cpu in sorted(assignment.cpus.items())}
        if len(assignment.vcpus_by_node) == 1:
            [(node_index, vcpus)] = assignment.vcpus_by_node.items()
            return dict.fromkeys(vcpus, self._text((node_index,)))
        texts = {
            v: self._text((p,)) for p, vcpus in assignment.vcpus_by_node.items() for v in vcpus
        }
        return dict(sorted(texts.items()))

    def _emulator(self, assignment: Assignment, vcpus: Mapping[int, str]) -> str:
        guest = assignment.wanted.guest
        if guest.owned.emulator:
            return cpuset.text(guest.owned.emulator)
        mode = assignment.wanted.policy.emulator
        if mode is EmulatorMode.VCPU0:
            return vcpus[min(vcpus)]
        return self._text(assignment.vcpus_by_node, housekeeping=mode is EmulatorMode.HOUSEKEEPING)

    def _iothreads(self, assignment: Assignment, emulator: str) -> dict[int, str]:
        guest = assignment.wanted.guest
        texts = {}
        for number, disks in guest.iothreads.items():
            owned = guest.owned.iothreads.get(number)
            texts[number] = (
                cpuset.text(owned) if owned else self._iothread(assignment, disks, emulator)
            )
        return texts

    def _iothread(self, assignment: Assignment, disks: tuple[str, ...], emulator: str) -> str:
        mode = assignment.wanted.policy.iothreads
        if mode is IoThreadMode.EMULATOR:
            return emulator
        if mode is IoThreadMode.HOUSEKEEPING:
            return self._text(assignment.vcpus_by_node, housekeeping=True)
        host, grid = self.host_capacity.host, self.host_capacity.grid
        nodes = (host.disks.get(disk, host.devices.get(disk, -1)) for disk in disks)
        places = [grid.node_index[node] for node in nodes if node in grid.node_index]
        return self._text(places[:1] or assignment.vcpus_by_node)

    # --- memory ---------------------------------------------------------------------------------

    def _hotplug_growth(self) -> dict[int, float]:
        """Bank → KiB that guests there may still be plugged."""
        growth: dict[int, float] = {}
        for assignment in self.assignments.values():
            guest = assignment.wanted.guest
            if guest.max_memory > guest.memory and assignment.vcpus_by_node:
                for share in assignment.shares:
                    part = share.memory / max(assignment.wanted.whole.memory, 1)
                    more = (guest.max_memory - guest.memory) * part
                    growth[share.node] = growth.get(share.node, 0) + more
        return growth

    def _memory(self, assignment: Assignment) -> tuple[MemoryPlacement | None, str]:
        """Where the memory goes, and why not as the policy asks."""
        mode = assignment.wanted.policy.memory
        if not assignment.wanted.memory_is_ours:
            return None, ""
        memory_nodes = sorted({share.node for share in assignment.shares})
        nodeset = cpuset.text(memory_nodes)
        if mode is MemoryMode.MOVE:
            return MemoryPlacement(mode.value, nodeset, self._cells(assignment)), ""
        full = [memory_node for memory_node in memory_nodes if not self._spare(memory_node)]
        if full:
            why = f"no wall, as node {full[0]} has no {100 * MARGIN:.0f} % to spare"
            return MemoryPlacement(MemoryMode.MOVE.value, nodeset, self._cells(assignment)), why
        return MemoryPlacement(mode.value, nodeset, self._cells(assignment)), ""

    def _spare(self, memory_node: int) -> bool:
        margin = max(MARGIN * self.host_capacity.host.by_id[memory_node].memory, LEAST_MARGIN)
        return (
            self.host_capacity.memory.memory[memory_node] - self._growth.get(memory_node, 0)
            >= margin
        )

    def _cells(self, assignment: Assignment) -> dict[int, int]:
        """vNUMA cell → node, where each cell is whole on one of several nodes."""
        if not assignment.wanted.cells or assignment.memory_nodes:
            return {}
        found = {}
        for cell in assignment.wanted.cells:
            homes = [
                p for p, vcpus in assignment.vcpus_by_node.items() if set(cell.vcpus) & set(vcpus)
            ]
            if len(homes) == 1:
                found[cell.cell] = self.host_capacity.grid.nodes[homes[0]].memory_node
        return found

    # --- placements -----------------------------------------------------------------------------

    def _placement(self, key: str, assignment: Assignment) -> Placement:
        guest = assignment.wanted.guest
        if not assignment.vcpus_by_node:
            why = self._why_alone(assignment.wanted)
            return Placement(
                guest.name, guest.uuid, PlacementKind.UNPLACED, (), {}, "", {}, None, why
            )
        vcpus = self._vcpus(assignment)
        emulator = self._emulator(assignment, vcpus)
        memory, lacking = self._memory(assignment)
        made = Placement(
            guest=guest.name,
            uuid=guest.uuid,
            kind=assignment.kind,
            nodes=tuple(
                self.host_capacity.grid.nodes[node_index].id
                for node_index in assignment.vcpus_by_node
            ),
            vcpus=vcpus,
            emulator=emulator,
            iothreads=self._iothreads(assignment, emulator),
            memory=memory,
            why=f"{assignment.why}; {lacking}" if lacking else assignment.why,
        )
        return _same_or(made, self.decided.kept.get(key))

    def _why_alone(self, wanted: GuestDemand) -> str:
        if wanted.shape not in self._reasons:
            self._reasons[wanted.shape] = left_alone(self.host_capacity, wanted)
        return self._reasons[wanted.shape]


def _same_or(made: Placement, kept: Placement | None) -> Placement:
    """The very object in force where nothing but the reason differs; its reason in any case."""
    if kept is None:
        return made
    same = replace(made, why=kept.why)
    return kept if same == kept else same
