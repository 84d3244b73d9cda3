# SPDX-License-Identifier: GPL-2.0-or-later
"""Several nodes for a guest that fits in none: fewest nodes, then least distance.

vNUMA cells stay whole where they can: they are matched to nodes by branch and bound. Equal cells
are never permuted, and a bounded number of steps is tried (Nova's search over permutations took
minutes for 8 cells on 16 nodes, LP#1978372). A guest without cells, or with a cell that no node
takes, is cut by vCPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from tuned_virt.placement.demand import GuestDemand, GuestPart
from tuned_virt.placement.host_capacity import HostCapacity, VcpusByNode
from tuned_virt.placement.single_node import places

MOST_SUBSETS = 3000
"""Sets of nodes that are compared one by one; beyond, sets grown from each node by distance."""

MOST_STEPS = 800
"""Steps of the search for cells, all seeds together."""

Table = tuple[tuple[int, ...], ...]


def spread(host_capacity: HostCapacity, wanted: GuestDemand, dedicated: bool) -> VcpusByNode | None:
    """vCPUs by node for a guest that no node takes whole; None where the host has no room."""
    if wanted.cells:
        found = _match_cells(host_capacity, wanted, dedicated)
        if found:
            return found
    return _cut(host_capacity, wanted, dedicated)


def span(table: Table, chosen: Iterable[int]) -> int:
    """Sum of the distances between all pairs of nodes."""
    return sum(table[one][other] for one, other in combinations(sorted(chosen), 2))


# --- by vCPUs -------------------------------------------------------------------------------------


def _cut(host_capacity: HostCapacity, wanted: GuestDemand, dedicated: bool) -> VcpusByNode | None:
    vcpus = len(wanted.whole.vcpus)
    node_capacity = {
        node_index: min(vcpus, _vcpus_with_memory(host_capacity, wanted, node_index, dedicated))
        for node_index in places(host_capacity, wanted)
    }
    node_capacity = {node_index: most for node_index, most in node_capacity.items() if most > 0}
    chosen = _fewest(node_capacity, vcpus, host_capacity, wanted)
    if chosen is None:
        return None
    numbers = _amounts(
        {node_index: node_capacity[node_index] for node_index in chosen},
        vcpus,
        wanted.guest.threads,
    )
    vcpus_by_node = {}
    rest = _in_cells(wanted)
    for node_index, number in numbers.items():
        vcpus_by_node[node_index], rest = rest[:number], rest[number:]
    shares = host_capacity.shares(wanted, vcpus_by_node)
    by_bank: dict[int, float] = {}
    for share in shares:
        by_bank[share.node] = by_bank.get(share.node, 0) + share.memory
    if all(host_capacity.memory.fits(by_bank[s.node], s.huge, s.node) for s in shares):
        return vcpus_by_node
    return None


def _vcpus_with_memory(
    host_capacity: HostCapacity, wanted: GuestDemand, node_index: int, dedicated: bool
) -> int:
    """vCPUs that a node takes together with their part of the memory."""
    whole, memory_node = wanted.whole, host_capacity.grid.nodes[node_index].memory_node
    vcpus = len(whole.vcpus)
    most = host_capacity.free_vcpus(node_index, wanted.policy, dedicated)
    if whole.memory:
        node_capacity = host_capacity.memory.memory[memory_node]
        most = (
            most
            if node_capacity == math.inf
            else min(most, int(node_capacity * vcpus / whole.memory))
        )
    for size, pages in whole.huge.items():
        most = min(most, int(host_capacity.memory.huge.get((memory_node, size), 0) * vcpus / pages))
    return most


def _in_cells(wanted: GuestDemand) -> tuple[int, ...]:
    """Its vCPUs, cell by cell."""
    ordered = [vcpu for cell in wanted.cells for vcpu in cell.vcpus]
    return tuple(ordered) or wanted.whole.vcpus


def _fewest(
    node_capacity: Mapping[int, int], vcpus: int, host_capacity: HostCapacity, wanted: GuestDemand
) -> tuple[int, ...] | None:
    by_size = sorted(node_capacity, key=lambda node_index: (-node_capacity[node_index], node_index))
    total, least = 0, 0
    while total < vcpus:
        if least == len(by_size):
            return None
        total += node_capacity[by_size[least]]
        least += 1
    table = host_capacity.grid.distances
    sets = _sets(by_size, least, table)
    enough = [
        chosen
        for chosen in sets
        if sum(node_capacity[node_index] for node_index in chosen) >= vcpus
    ]

    def cost(chosen: tuple[int, ...]) -> tuple[float, ...]:
        devices = sum(
            host_capacity.device_distance(wanted.guest, node_index) for node_index in chosen
        )
        to_move = sum(host_capacity.to_move(wanted.guest, node_index) for node_index in chosen)
        return (span(table, chosen), devices, to_move, *chosen)

    return min(enough, key=cost)


def _sets(by_size: list[int], number: int, table: Table) -> Iterator[tuple[int, ...]]:
    """Sets of so many nodes; always among them the one with the most room."""
    if math.comb(len(by_size), number) <= MOST_SUBSETS:
        yield from combinations(sorted(by_size), number)
        return
    yield tuple(sorted(by_size[:number]))
    for seed in by_size:
        grown = sorted(
            by_size, key=lambda node_index: (table[seed][node_index], by_size.index(node_index))
        )
        yield tuple(sorted(grown[:number]))


def _amounts(node_capacity: Mapping[int, int], vcpus: int, threads: int) -> dict[int, int]:
    """How many vCPUs each node takes, by place: the emptiest most, guest cores kept whole."""
    taken = {}
    order = sorted(node_capacity, key=lambda node_index: (-node_capacity[node_index], node_index))
    for at, node_index in enumerate(order):
        later = sum(node_capacity[other] for other in order[at + 1 :])
        most = min(node_capacity[node_index], vcpus)
        even = most - most % threads
        taken[node_index] = even if even and vcpus - even <= later else most
        vcpus -= taken[node_index]
    return {node_index: taken[node_index] for node_index in sorted(taken) if taken[node_index]}


# --- by cells -------------------------------------------------------------------------------------


def _match_cells(
    host_capacity: HostCapacity, wanted: GuestDemand, dedicated: bool
) -> VcpusByNode | None:
    search = _CellSearch(host_capacity, wanted, dedicated)
    best = search.run()
    if best is None:
        return None
    vcpus_by_node: dict[int, tuple[int, ...]] = {}
    for part, node_index in sorted(zip(search.parts, best), key=lambda pair: pair[1]):
        vcpus_by_node[node_index] = tuple(sorted((*vcpus_by_node.get(node_index, ()), *part.vcpus)))
    return {node_index: vcpus for node_index, vcpus in vcpus_by_node.items() if vcpus} or None


class _CellSearch:
    """Cells → places by depth-first search, the largest cell first, from each node as a seed.

    Within a seed, places are in order of distance from it, and a cell equal to the one before is
    never put before it in that order. Cost: nodes used, distances between them, distance of
    devices, KiB to move.
    """

    def __init__(self, host_capacity: HostCapacity, wanted: GuestDemand, dedicated: bool) -> None:
        self.host_capacity = host_capacity
        self.table = host_capacity.grid.distances
        self.parts = sorted(wanted.cells, key=lambda c: (-len(c.vcpus), -c.memory, c.cell))
        self.allowed = [
            set(host_capacity.allowed(part)) & set(places(host_capacity, wanted))
            for part in self.parts
        ]
        self.node_capacity = [
            host_capacity.free_vcpus(node_index, wanted.policy, dedicated)
            for node_index in range(len(host_capacity.node_capacities))
        ]
        self.largest = max(self.node_capacity, default=0)
        self.needed = [sum(len(p.vcpus) for p in self.parts[at:]) for at in range(len(self.parts))]
        self.extra = [
            (
                host_capacity.device_distance(wanted.guest, node_index),
                host_capacity.to_move(wanted.guest, node_index),
            )
            for node_index in range(len(host_capacity.node_capacities))
        ]
        self.tied = any(map(any, self.extra))
        self.memory_nodes = host_capacity.memory.copy()
        self.best: tuple[float, ...] | None = None
        self.found: list[int] | None = None

    def run(self) -> list[int] | None:
        """A place for each part, None where none was found."""
        seeds = [
            node_index
            for node_index, node_capacity in enumerate(self.node_capacity)
            if node_capacity > 0
        ]
        for seed in seeds:
            self.order = sorted(
                seeds, key=lambda node_index: (self.table[seed][node_index], node_index)
            )
            self.steps = MOST_STEPS // len(seeds)
            self._descend([], 0)
        return self.found

    def _descend(self, chosen: list[int], distance: int) -> None:
        at = len(chosen)
        if at == len(self.parts):
            self._keep(chosen, distance)
            return
        self.steps -= 1
        if self.steps < 0 or self._hopeless(chosen, distance):
            return
        part = self.parts[at]
        start = 0
        if at and _equal(part, self.parts[at - 1]):
            start = self.order.index(chosen[-1])
        used = set(chosen)
        for node_index in self.order[start:]:
            memory_node = self.host_capacity.grid.nodes[node_index].memory_node
            if self._fits(at, node_index, memory_node):
                further = (
                    0 if node_index in used else sum(self.table[node_index][one] for one in used)
                )
                self._use(part, node_index, memory_node, 1)
                self._descend([*chosen, node_index], distance + further)
                self._use(part, node_index, memory_node, -1)

    def _fits(self, at: int, node_index: int, memory_node: int) -> bool:
        part = self.parts[at]
        return (
            self.node_capacity[node_index] >= len(part.vcpus)
            and node_index in self.allowed[at]
            and self.memory_nodes.fits(part.memory, part.huge, memory_node)
        )

    def _use(self, part: GuestPart, node_index: int, memory_node: int, sign: int) -> None:
        self.node_capacity[node_index] -= sign * len(part.vcpus)
        self.memory_nodes.memory[memory_node] -= sign * part.memory
        for size, pages in part.huge.items():
            self.memory_nodes.huge[memory_node, size] -= sign * pages

    def _hopeless(self, chosen: list[int], distance: int) -> bool:
        """Whether even the roomiest further nodes would make it no better than the best."""
        if self.best is None:
            return False
        used = set(chosen)
        over = self.needed[len(chosen)] - sum(self.node_capacity[node_index] for node_index in used)
        nodes = len(used) + max(0, math.ceil(over / self.largest))
        bound, best = (nodes, distance), self.best[:2]
        return bound > best or (bound == best and not self.tied)

    def _keep(self, chosen: list[int], distance: int) -> None:
        used = sorted(set(chosen))
        devices = sum(self.extra[node_index][0] for node_index in used)
        to_move = sum(self.extra[node_index][1] for node_index in used)
        cost = (len(used), distance, devices, to_move, *chosen)
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


def widen(
    host_capacity: HostCapacity, wanted: GuestDemand, dedicated: bool
) -> tuple[VcpusByNode, tuple[int, ...]] | None:
    """One node for the vCPUs of a guest whose memory fits in none, and the nodes for its memory.

    Those are its own and the nearest further ones, filled by their size; never for huge pages.
    """
    vcpus = wanted.whole.vcpus
    if wanted.whole.huge:
        return None
    found = []
    for node_index in places(host_capacity, wanted):
        memory_nodes = _wide(host_capacity, wanted, node_index)
        if memory_nodes and host_capacity.free_vcpus(node_index, wanted.policy, dedicated) >= len(
            vcpus
        ):
            node = host_capacity.grid.nodes[node_index].id
            far = sum(
                host_capacity.host.distance(node, memory_node) for memory_node in memory_nodes
            )
            found.append((len(memory_nodes), far, node_index, memory_nodes))
    if not found:
        return None
    _, _, node_index, memory_nodes = min(found)
    return {node_index: vcpus}, memory_nodes


def _wide(host_capacity: HostCapacity, wanted: GuestDemand, node_index: int) -> tuple[int, ...]:
    node = host_capacity.grid.nodes[node_index]
    with_cpus = {other.memory_node for other in host_capacity.grid.nodes}
    allowed = wanted.whole.allowed or with_cpus
    order = sorted(
        with_cpus & allowed - {node.memory_node},
        key=lambda b: (host_capacity.host.distance(node.id, b), b),
    )
    for number in range(1, len(order) + 1):
        memory_nodes = tuple(sorted((node.memory_node, *order[:number])))
        shares = host_capacity.shares(wanted, {node_index: ()}, memory_nodes)
        if all(host_capacity.memory.fits(share.memory, {}, share.node) for share in shares):
            return memory_nodes
    return ()
