# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan's assignments as placements: cpusets as text, walls where they are safe, warnings."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.placement.assignment import Assignment
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import (
    MemoryPlacement,
    Placement,
    PlacementKind,
    PlacementPlan,
    unplaced,
)
from tuned_virt.placement.node_capacity import NodeCapacity
from tuned_virt.placement.place_guest import unplaced_reason
from tuned_virt.placement.policy import EmulatorMode, IoThreadMode, MemoryMode, ignored_wishes

MARGIN = 0.05
"""Part of a node's memory that must stay free beyond a wall's guests: the guide's 9.2 warns that
a node that fills kills."""

LEAST_MARGIN = 256 << 10
"""KiB; the kernel's own needs on a small node."""

SHARED, HOUSEKEEPING, EFFICIENT = "shared", "housekeeping", "efficient"
UNDEDICATED = "undedicated"
"""Sorts of CPUs: undedicated ones, those never dedicated, and undedicated ones on the slowest cores
of a node that has several kinds; undedicated ones with those to which owners pinned."""


@dataclass
class DecidedPlacements:
    """What is to be put into words, by guest's key.

    fixed      placements that are not ours to make
    retained   placements in force, of guests that stay where they are
    untouched  those of them that nothing has changed: taken as they are
    loose      names of guests of which an owner or manager left vCPUs unpinned
    """

    assignments: Mapping[str, Assignment]
    fixed: Mapping[str, Placement]
    warnings: Iterable[str]
    retained: Mapping[str, Placement]
    untouched: Collection[str] = ()
    loose: Sequence[str] = ()


class PlacementResult:
    """Everything decided, put into words."""

    def __init__(self, capacity: HostCapacity, decided: DecidedPlacements) -> None:
        self.capacity = capacity
        self.decided = decided
        self.assignments = decided.assignments
        nodes = capacity.nodes
        self._sets = {
            SHARED: [node.grid.numbers(node.shared) for node in nodes],
            HOUSEKEEPING: [node.grid.numbers(node.housekeeping) for node in nodes],
            EFFICIENT: list(map(_efficient, nodes)),
            UNDEDICATED: [node.grid.numbers(node.shared | node.owned) for node in nodes],
        }
        self._texts: dict[tuple[frozenset[int] | None, str, tuple[int, ...]], str] = {}
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
        made, decided = dict(self.decided.fixed), self.decided
        for key, one in self.assignments.items():
            same = key in decided.untouched
            made[key] = decided.retained[key] if same else self._placement(key, one)
        return dict(sorted(made.items(), key=lambda item: (item[1].guest, item[1].uuid)))

    def _loose(self) -> list[str]:
        """Who may run on CPUs that are dedicated to others."""
        placements = self.placements.values()
        if not any(one.kind is PlacementKind.DEDICATED for one in placements):
            return []
        said = "can run on CPUs that are dedicated to others"
        alone = [one.guest for one in placements if one.kind is PlacementKind.UNPLACED]
        found = [f"not placed, and {said}: {_some(alone)}"] if alone else []
        if self.decided.loose and self._dedicates_balanced():
            names = _some(self.decided.loose)
            found.append(f"not all of their vCPUs are pinned, and these {said}: {names}")
        return found

    def _dedicates_balanced(self) -> bool:
        """Whether CPUs are dedicated on which the scheduler may put any thread."""
        nodes = self.capacity.grid.nodes
        return any(
            mask & ~nodes[node_index].isolated
            for one in self.assignments.values()
            for node_index, mask in one.masks.items()
        )

    # --- cpusets --------------------------------------------------------------------------------

    def _text(self, guest: Guest, nodes: Iterable[int], sort: str = SHARED) -> str:
        """CPUs of a sort that a guest may use, of nodes; else of the nearest that has some."""
        key = (self.capacity.host.allowed(guest.partition), sort, tuple(nodes))
        if key not in self._texts:
            self._texts[key] = cpuset.text(self._cpus(*key))
        return self._texts[key]

    def _cpus(self, allowed: frozenset[int] | None, sort: str, nodes: tuple[int, ...]) -> list[int]:
        sets = [
            cpus if allowed is None else [cpu for cpu in cpus if cpu in allowed]
            for cpus in self._sets[sort]
        ]
        found = [cpu for node_index in nodes for cpu in sets[node_index]]
        if found:
            return found
        if sort == EFFICIENT or (sort == HOUSEKEEPING and allowed is not None and not any(sets)):
            return self._cpus(allowed, SHARED, nodes)
        table = self.capacity.grid.distances
        near = sorted(range(len(sets)), key=lambda other: (table[nodes[0]][other], other))
        return next((sets[node_index] for node_index in near if sets[node_index]), [])

    def _vcpus(self, assignment: Assignment) -> dict[int, str]:
        guest = assignment.wanted.guest
        if assignment.dedicated:
            return {vcpu: str(cpu) for vcpu, cpu in sorted(assignment.cpus.items())}
        if assignment.anywhere:
            everywhere = self._text(guest, assignment.vcpus_by_node, UNDEDICATED)
            return dict.fromkeys(assignment.wanted.whole.vcpus, everywhere)
        if len(assignment.vcpus_by_node) == 1:
            [(node_index, vcpus)] = assignment.vcpus_by_node.items()
            return dict.fromkeys(vcpus, self._text(guest, (node_index,)))
        by_node = assignment.vcpus_by_node.items()
        return dict(sorted((v, self._text(guest, (at,))) for at, vcpus in by_node for v in vcpus))

    def _emulator(self, assignment: Assignment, vcpus: Mapping[int, str]) -> str:
        guest = assignment.wanted.guest
        if guest.owned.emulator:
            return cpuset.text(guest.owned.emulator)
        mode = assignment.wanted.policy.emulator
        if mode is EmulatorMode.VCPU0:
            return vcpus[min(vcpus)]
        if mode is EmulatorMode.HOUSEKEEPING:
            return self._text(guest, assignment.vcpus_by_node, HOUSEKEEPING)
        sort = EFFICIENT if assignment.dedicated else SHARED
        return self._text(guest, assignment.vcpus_by_node, sort)

    def _iothreads(self, assignment: Assignment, emulator: str) -> dict[int, str]:
        guest = assignment.wanted.guest
        owned = guest.owned.iothreads
        return {
            number: cpuset.text(owned[number])
            if owned.get(number)
            else self._iothread(assignment, disks, emulator)
            for number, disks in guest.iothreads.items()
        }

    def _iothread(self, assignment: Assignment, disks: tuple[str, ...], emulator: str) -> str:
        mode, guest = assignment.wanted.policy.iothreads, assignment.wanted.guest
        if mode is IoThreadMode.EMULATOR:
            return emulator
        if mode is IoThreadMode.HOUSEKEEPING:
            return self._text(guest, assignment.vcpus_by_node, HOUSEKEEPING)
        host, grid = self.capacity.host, self.capacity.grid
        nodes = (host.disks.get(disk, host.devices.get(disk, -1)) for disk in disks)
        near = [grid.node_index[node] for node in nodes if node in grid.node_index]
        return self._text(guest, near[:1] or assignment.vcpus_by_node)

    # --- memory ---------------------------------------------------------------------------------

    def _hotplug_growth(self) -> dict[int, float]:
        """Node → KiB that guests there may use beyond what they do."""
        growth: dict[int, float] = {}
        for assignment in self.assignments.values():
            guest = assignment.wanted.guest
            more = max(guest.max_memory, guest.memory) - guest.memory + guest.ballooned
            if more and assignment.vcpus_by_node:
                for share in assignment.shares:
                    part = share.memory / max(assignment.wanted.whole.memory, 1)
                    growth[share.node] = growth.get(share.node, 0) + more * part
        return growth

    def _memory(self, assignment: Assignment) -> tuple[MemoryPlacement | None, str]:
        """Where the memory goes, and why not as the policy asks."""
        mode = assignment.wanted.policy.memory
        if not assignment.wanted.memory_is_ours:
            return None, ""
        if assignment.anywhere:
            wall = mode is not MemoryMode.MOVE
            return None, "memory is not bound, because it floats over all nodes" if wall else ""
        memory_nodes = sorted({share.node for share in assignment.shares})
        why = ""
        full = [node for node in memory_nodes if not self._spare(node)]
        if mode is not MemoryMode.MOVE and full:
            why = (
                f"memory is not bound, because node {full[0]} does not have"
                f" {100 * MARGIN:.0f} % more free"
            )
            mode = MemoryMode.MOVE
        cells = self._cells(assignment)
        return MemoryPlacement(mode.value, cpuset.text(memory_nodes), cells), why

    def _spare(self, memory_node: int) -> bool:
        capacity = self.capacity
        margin = max(MARGIN * capacity.host.by_id[memory_node].memory, LEAST_MARGIN)
        return capacity.memory.memory[memory_node] - self._growth.get(memory_node, 0) >= margin

    def _cells(self, assignment: Assignment) -> dict[int, int]:
        """vNUMA cell → node, where each cell is whole on one of several nodes."""
        if not assignment.wanted.cells or assignment.memory_nodes:
            return {}
        found, by_node = dict(assignment.homes), assignment.vcpus_by_node.items()
        for cell in assignment.wanted.cells:
            nodes = [at for at, vcpus in by_node if not set(cell.vcpus).isdisjoint(vcpus)]
            if len(nodes) == 1:
                found[cell.cell] = self.capacity.home(cell, nodes[0])
        return dict(sorted(found.items()))

    # --- placements -----------------------------------------------------------------------------

    def _placement(self, key: str, assignment: Assignment) -> Placement:
        guest = assignment.wanted.guest
        ignored = ignored_wishes(guest, assignment.wanted.policy) if guest.wishes else ""
        if not assignment.vcpus_by_node:
            why = self._why_alone(assignment.wanted)
            asked = f"policy={assignment.wanted.policy.policy.value}"
            left = unplaced(guest.name, guest.uuid, why, ungranted=asked)
            return replace(left, ignored=ignored) if ignored else left
        vcpus = self._vcpus(assignment)
        emulator = self._emulator(assignment, vcpus)
        memory, lacking = self._memory(assignment)
        made = Placement(
            guest=guest.name,
            uuid=guest.uuid,
            kind=assignment.kind,
            nodes=tuple(self.capacity.grid.nodes[at].id for at in assignment.vcpus_by_node),
            vcpus=vcpus,
            emulator=emulator,
            iothreads=self._iothreads(assignment, emulator),
            memory=memory,
            why=f"{assignment.why}; {lacking}" if lacking else assignment.why,
            ungranted=_ungranted(assignment, bool(lacking)),
            ignored=ignored,
        )
        retained = self.decided.retained.get(key)
        if retained is None:
            return made
        same = replace(made, why=retained.why)
        return retained if same == retained else same  # the very object, and its reason in any case

    def _why_alone(self, wanted: GuestDemand) -> str:
        alike = (wanted.dedicated, wanted.shape)
        if alike not in self._reasons:
            self._reasons[alike] = unplaced_reason(self.capacity, wanted)
        return self._reasons[alike]


def _efficient(node: NodeCapacity) -> list[int]:
    """Undedicated CPUs on the slowest cores of a node that has several kinds."""
    clusters = node.grid.clusters
    slowest = clusters[-1].capacity
    if clusters[0].capacity == slowest:
        return []
    return node.grid.numbers(
        node.shared & sum(one.mask for one in clusters if one.capacity == slowest)
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _ungranted(assignment: Assignment, memory_is_loose: bool) -> str:
    """What a placed guest's policy asks for and it does not get."""
    asked = assignment.wanted
    lacking = ["policy=dedicated"] if asked.dedicated and not assignment.dedicated else []
    lacking += [f"memory={asked.policy.memory.value}"] if memory_is_loose else []
    return ", ".join(lacking)
