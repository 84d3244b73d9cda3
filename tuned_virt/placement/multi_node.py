# SPDX-License-Identifier: GPL-2.0-or-later
"""Several nodes for a guest that fits in none: fewest nodes, then least distance.

vNUMA cells stay whole where they can: they are matched to nodes by branch and bound. Equal cells
are never permuted, and a bounded number of steps is tried (Nova's search over permutations took
minutes for 8 cells on 16 nodes, LP#1978372). A guest without cells, or with a cell that no node
could ever take, is cut by vCPUs. Cells for which there is just no room now, and two vCPUs, are not
torn apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, combinations
from typing import NamedTuple

from tuned_virt.placement.demand import GuestDemand, GuestPart
from tuned_virt.placement.host_capacity import HostCapacity, VcpusByNode
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.strategy import Strategy

MOST_SUBSETS = 3000
"""Sets of nodes that are compared one by one; beyond, sets grown from each node by distance."""

MOST_STEPS = 800
"""Steps of the search for cells, all seeds together."""

Table = tuple[tuple[int, ...], ...]


class Spread(NamedTuple):
    """vCPUs by node; vNUMA cell without vCPUs that are online → node of its memory."""

    vcpus_by_node: VcpusByNode
    homes: Mapping[int, int]


def spread(way: Strategy) -> Spread | None:
    """Nodes for a guest that no node takes whole; None where the host has no room."""
    matched = _match_cells(way) if way.wanted.cells else None
    if matched:
        return matched
    cut = _cut(way)
    return Spread(cut, {}) if cut else None


def span(table: Table, chosen: Iterable[int]) -> int:
    """Sum of the distances between all pairs of nodes."""
    return sum(table[one][other] for one, other in combinations(sorted(chosen), 2))


# --- by vCPUs -------------------------------------------------------------------------------------


def _cut(way: Strategy) -> VcpusByNode | None:
    if _would_tear(way):
        return None
    vcpus = len(way.wanted.whole.vcpus)
    free = {
        at: min(vcpus, _vcpus_with_memory(way, at)) for at in way.capacity.nodes_for(way.wanted)
    }
    free = {node_index: most for node_index, most in free.items() if most > 0}
    for chosen in _fewest(free, vcpus, way):
        for numbers in _numbers(way, {at: free[at] for at in chosen}):
            cut = _divided(way.wanted, numbers)
            if memory_fits(way, cut):
                return cut
    return None


def _would_tear(way: Strategy) -> bool:
    """Whether CPUs are short just now for what has to stay together and could, on a node."""
    capacity, wanted = way.capacity, way.wanted
    parts = wanted.cells or (wanted.whole,)
    widest = max(len(part.vcpus) for part in parts)
    if not wanted.cells and widest > max(2, wanted.guest.threads):
        return False
    nodes = {at for part in parts for at in capacity.nodes_for(wanted, part)}
    if widest > max((len(capacity.grid.nodes[at].cpus) for at in nodes), default=0):
        return False
    free = sorted(way.free_vcpus(at) for at in nodes)
    for part in sorted(parts, key=lambda part: -len(part.vcpus)):
        at = next((at for at, most in enumerate(free) if most >= len(part.vcpus)), None)
        if at is None:
            return True
        free[at] -= len(part.vcpus)
        free.sort()
    return False


def _numbers(way: Strategy, free: Mapping[int, int]) -> Iterator[dict[int, int]]:
    """How many vCPUs each of some nodes with so much room may take: level where they are its own or
    in dies; else the emptiest most, as others find more room then, or level, as nodes that share
    one's memory may not have enough for that."""
    guest = way.wanted.guest
    vcpus = len(way.wanted.whole.vcpus)
    if way.kind is not PlacementKind.DEDICATED and not guest.die:
        yield _amounts(free, vcpus, guest.threads)
    yield _level_amounts(free, vcpus, (guest.die, guest.threads, 1))


def _divided(wanted: GuestDemand, numbers: Mapping[int, int]) -> VcpusByNode:
    """The guest's vCPUs, so many a node; nodes with whole guest cores first."""
    threads = wanted.guest.threads
    vcpus_by_node = {}
    rest = _in_cells(wanted)
    for node_index in sorted(numbers, key=lambda at: (numbers[at] % threads, at)):
        number = numbers[node_index]
        vcpus_by_node[node_index], rest = rest[:number], rest[number:]
    return dict(sorted(vcpus_by_node.items()))


def memory_fits(way: Strategy, vcpus_by_node: VcpusByNode) -> bool:
    """Whether all parts have their memory; several nodes may have it from one."""
    left = way.capacity.memory.copy()
    for share in way.capacity.shares(way.wanted, vcpus_by_node):
        if not left.fits(share.memory, share.huge, share.node):
            return False
        left.charge([share])
    return True


def _vcpus_with_memory(way: Strategy, node_index: int) -> int:
    """vCPUs that a node takes together with their part of the memory."""
    whole, memory = way.wanted.whole, way.capacity.memory
    memory_node = way.capacity.home(whole, node_index)
    vcpus = len(whole.vcpus)
    most = way.free_vcpus(node_index)
    free = memory.memory[memory_node]
    if whole.memory and free != math.inf:
        most = min(most, int(free * vcpus / whole.memory))
    for size, pages in whole.huge.items():
        most = min(most, int(memory.huge.get((memory_node, size), 0) * vcpus / pages))
    return most


def _in_cells(wanted: GuestDemand) -> tuple[int, ...]:
    """Its vCPUs, cell by cell."""
    ordered = [vcpu for cell in wanted.cells for vcpu in cell.vcpus]
    return tuple(ordered) or wanted.whole.vcpus


def _fewest(free: Mapping[int, int], vcpus: int, way: Strategy) -> Iterator[tuple[int, ...]]:
    """Sets of nodes with room for so many vCPUs: of as few as have it, the fittest and then the
    nearest first, then of more, as nodes without memory of their own may have to share what one of
    them has."""
    by_size = sorted(free, key=lambda node_index: (-free[node_index], node_index))
    room = accumulate(free[node_index] for node_index in by_size)
    least = next((number for number, total in enumerate(room, 1) if total >= vcpus), 0)
    if not least:
        return
    table, guest = way.capacity.grid.distances, way.wanted.guest

    def cost(chosen: tuple[int, ...]) -> tuple[float, ...]:
        devices = sum(way.capacity.device_distance(guest, node_index) for node_index in chosen)
        devices += sum(way.capacity.beyond(way.wanted.whole, node_index) for node_index in chosen)
        to_move = sum(way.capacity.to_move(guest, node_index) for node_index in chosen)
        drawback = sum(way.drawback(node_index) for node_index in chosen)
        return (drawback, span(table, chosen), devices, to_move, *chosen)

    for number in range(least, len(by_size) + 1):
        sets = _sets(by_size, number, table)
        yield from sorted((one for one in sets if sum(free[at] for at in one) >= vcpus), key=cost)


def _sets(by_size: list[int], number: int, table: Table) -> Iterator[tuple[int, ...]]:
    """Sets of so many nodes; always among them the one with the most room."""
    if math.comb(len(by_size), number) <= MOST_SUBSETS:
        yield from combinations(sorted(by_size), number)
        return
    yield tuple(sorted(by_size[:number]))
    for seed in by_size:
        grown = sorted(by_size, key=lambda index: (table[seed][index], by_size.index(index)))
        yield tuple(sorted(grown[:number]))


def _amounts(free: Mapping[int, int], vcpus: int, threads: int) -> dict[int, int]:
    """How many vCPUs each node takes, by index: the emptiest most, guest cores kept whole."""
    taken = {}
    order = sorted(free, key=lambda node_index: (-free[node_index], node_index))
    for at, node_index in enumerate(order):
        later = sum(free[other] for other in order[at + 1 :])
        most = min(free[node_index], vcpus)
        even = most - most % threads
        taken[node_index] = even if even and vcpus - even <= later else most
        vcpus -= taken[node_index]
    return {node_index: taken[node_index] for node_index in sorted(taken) if taken[node_index]}


def _level_amounts(free: Mapping[int, int], vcpus: int, grains: Sequence[int]) -> dict[int, int]:
    """How many vCPUs each node takes, by index: as level as their room and the guest's own dies,
    cores or vCPUs permit, the first of which all nodes together have room for."""
    grain = next(
        one for one in grains if one and vcpus <= sum(room - room % one for room in free.values())
    )
    taken = {}
    order = sorted(free, key=lambda node_index: (free[node_index], -node_index))
    for at, node_index in enumerate(order):
        later = sum(free[other] - free[other] % grain for other in order[at + 1 :])
        least = max(0, vcpus - later)
        level = vcpus // (len(order) - at)
        number = max(level - level % grain, least + -least % grain)
        taken[node_index] = min(number, free[node_index], vcpus)
        vcpus -= taken[node_index]
    return {node_index: taken[node_index] for node_index in sorted(taken) if taken[node_index]}


# --- by cells -------------------------------------------------------------------------------------


def _match_cells(way: Strategy) -> Spread | None:
    search = _CellSearch(way)
    best = search.run()
    if best is None:
        return None
    vcpus_by_node: dict[int, tuple[int, ...]] = {}
    homes = {}
    for at, node_index in sorted(enumerate(best), key=lambda pair: pair[1]):
        part = search.parts[at]
        if part.vcpus:
            found = (*vcpus_by_node.get(node_index, ()), *part.vcpus)
            vcpus_by_node[node_index] = tuple(sorted(found))
        elif way.wanted.memory_is_ours:
            homes[part.cell] = search.homes[at][node_index]
    return Spread(vcpus_by_node, homes) if vcpus_by_node else None


class _CellSearch:
    """Cells → nodes by depth-first search, the largest cell first, from each node as a seed.

    Within a seed, nodes are in order of distance from it, and a cell equal to the one before is
    never put before it in that order. Cost: nodes used, what speaks against them, distances between
    them, distance of devices and of memory that the owner has put elsewhere, KiB to move. A cell
    without vCPUs needs only memory.
    """

    def __init__(self, way: Strategy) -> None:
        capacity, wanted = way.capacity, way.wanted
        indices = range(len(capacity.nodes))
        self.table = capacity.grid.distances
        self.parts = sorted(wanted.cells, key=lambda c: (-len(c.vcpus), -c.memory, c.cell))
        self.allowed = [set(capacity.nodes_for(wanted, part)) for part in self.parts]
        self.homes = [[capacity.home(part, at) for at in indices] for part in self.parts]
        self.beyond = [[capacity.beyond(part, at) for at in indices] for part in self.parts]
        self.free = [way.free_vcpus(node_index) for node_index in indices]
        self.largest = max(self.free, default=0)
        self.needed = [sum(len(p.vcpus) for p in self.parts[at:]) for at in range(len(self.parts))]
        self.drawback = [way.drawback(node_index) for node_index in indices]
        self.extra = [way.ties(node_index) for node_index in indices]
        self.tied = any(map(any, (*self.extra, *self.beyond)))
        self.memory = capacity.memory.copy()
        self.best: tuple[float, ...] | None = None
        self.found: list[int] | None = None

    def run(self) -> list[int] | None:
        """A node for each part, None where none was found."""
        seeds = [node_index for node_index, free in enumerate(self.free) if free > 0]
        nodes = seeds if all(part.vcpus for part in self.parts) else range(len(self.free))
        for seed in seeds:
            self.order = sorted(nodes, key=lambda at: (self.table[seed][at], at))
            self.steps = MOST_STEPS // len(seeds)
            self._descend([], 0)
        return self.found

    def _descend(self, chosen: list[int], distance: int) -> None:
        at = len(chosen)
        if at == len(self.parts):
            self._note(chosen, distance)
            return
        self.steps -= 1
        if self.steps < 0 or self._bounded_out(chosen, distance):
            return
        part = self.parts[at]
        start = 0
        if at and _equal(part, self.parts[at - 1]):
            start = self.order.index(chosen[-1])
        used = set(chosen)
        for node_index in self.order[start:]:
            memory_node = self.homes[at][node_index]
            if self._fits(at, node_index, memory_node):
                row = self.table[node_index]
                further = 0 if node_index in used else sum(row[one] for one in used)
                self._use(part, node_index, memory_node, 1)
                self._descend([*chosen, node_index], distance + further)
                self._use(part, node_index, memory_node, -1)

    def _fits(self, at: int, node_index: int, memory_node: int) -> bool:
        part = self.parts[at]
        return (
            (not part.vcpus or self.free[node_index] >= len(part.vcpus))
            and node_index in self.allowed[at]
            and self.memory.fits(part.memory, part.huge, memory_node)
        )

    def _use(self, part: GuestPart, node_index: int, memory_node: int, sign: int) -> None:
        self.free[node_index] -= sign * len(part.vcpus)
        self.memory.memory[memory_node] -= sign * part.memory
        for size, pages in part.huge.items():
            self.memory.huge[memory_node, size] -= sign * pages

    def _bounded_out(self, chosen: list[int], distance: int) -> bool:
        """Whether even the roomiest further nodes would make it no better than the best."""
        if self.best is None:
            return False
        used = set(chosen)
        over = self.needed[len(chosen)] - sum(self.free[node_index] for node_index in used)
        nodes = len(used) + max(0, math.ceil(over / self.largest))
        drawback = sum(self.drawback[node_index] for node_index in used)
        bound, best = (nodes, drawback, distance), self.best[:3]
        return bound > best or (bound == best and not self.tied)

    def _note(self, chosen: list[int], distance: int) -> None:
        used = sorted(set(chosen))
        far = sum(self.extra[node_index][0] for node_index in used)
        far += sum(self.beyond[at][node_index] for at, node_index in enumerate(chosen))
        to_move = sum(self.extra[node_index][1] for node_index in used)
        drawback = sum(self.drawback[node_index] for node_index in used)
        cost = (len(used), drawback, distance, far, to_move, *chosen)
        if self.best is None or cost < self.best:
            self.best, self.found = cost, list(chosen)


def _equal(one: GuestPart, other: GuestPart) -> bool:
    return (
        len(one.vcpus) == len(other.vcpus)
        and one.memory == other.memory
        and one.huge == other.huge
        and one.allowed == other.allowed
    )


# --- by memory ------------------------------------------------------------------------------------


def widen(way: Strategy) -> tuple[VcpusByNode, tuple[int, ...]] | None:
    """One node for the vCPUs of a guest whose memory fits in none, and the nodes for its memory.

    Those are its own and the nearest further ones, filled by their size; never for huge pages.
    """
    capacity, whole = way.capacity, way.wanted.whole
    if whole.huge:
        return None
    found = []
    for node_index in capacity.nodes_for(way.wanted):
        if way.free_vcpus(node_index) < len(whole.vcpus):
            continue
        memory_nodes = _wide(capacity, way.wanted, node_index)
        if memory_nodes:
            node = capacity.grid.nodes[node_index].id
            far = sum(capacity.host.distance(node, other) for other in memory_nodes)
            found.append((len(memory_nodes), far, node_index, memory_nodes))
    if not found:
        return None
    _, _, node_index, memory_nodes = min(found)
    return {node_index: whole.vcpus}, memory_nodes


def _wide(capacity: HostCapacity, wanted: GuestDemand, node_index: int) -> tuple[int, ...]:
    node, distance = capacity.grid.nodes[node_index], capacity.host.distance
    home = capacity.home(wanted.whole, node_index)
    others = wanted.whole.allowed or {other.memory_node for other in capacity.grid.nodes}
    found = {one.id for one in capacity.host.nodes if one.id in others and one.memory} - {home}
    order = sorted(found, key=lambda other: (distance(node.id, other), other))
    for number in range(1, len(order) + 1):
        memory_nodes = tuple(sorted((home, *order[:number])))
        shares = capacity.shares(wanted, {node_index: ()}, memory_nodes)
        if all(capacity.memory.fits(share.memory, {}, share.node) for share in shares):
            return memory_nodes
    return ()
