# SPDX-License-Identifier: GPL-2.0-or-later
"""What is still free on a host while a plan is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from tuned_virt.model.topology import Host, NumaNode
from tuned_virt.model.topology.grid import GridNode
from tuned_virt.placement import core_yield
from tuned_virt.placement.core_yield import CoreYield
from tuned_virt.placement.policy import Smt

TINY = 1e-9
"""Loads are sums of fractions: less than this does not count."""


def count(mask: int) -> int:
    """CPUs in a mask (int.bit_count needs Python 3.10)."""
    return bin(mask).count("1")


class NodeCapacity:
    """One node's CPUs.

    free      may be dedicated;  shared: guests and emulators may float on them
    load      how many of the shared CPUs the floating guests need
    confined  mask → the part of that which is of guests that a cpuset confines to it
    free_in   cluster → number of its free CPUs
    owned     CPUs to which owners pinned one vCPU alone; guests that nobody confines use them too
    """

    def __init__(self, grid: GridNode, housekeeping: int, avoided: int, taken: int) -> None:
        """avoided: never dedicated, as owners' guests run there; taken: by one alone."""
        self.grid = grid
        self.housekeeping = housekeeping
        self.free = (grid.isolated or grid.everything) & ~(housekeeping | avoided | taken)
        self.shared = grid.everything & ~(grid.isolated | taken)
        self.owned = grid.everything & ~grid.isolated & taken
        self._yields: dict[int, CoreYield] = {}
        self._both: tuple[CoreYield, CoreYield, int] | None = None
        self._at_first = (self.free, self.shared)
        self.load = 0.0
        self.confined: dict[int, float] = {}
        self.free_in = [count(cluster.mask & self.free) for cluster in grid.clusters]
        self.free_count = sum(self.free_in)
        self.shared_count = count(self.shared)

    def copy(self) -> NodeCapacity:
        """Another with the same content."""
        other: NodeCapacity = object.__new__(NodeCapacity)
        other.__dict__.update(self.__dict__)
        other.free_in = list(self.free_in)
        other.confined = dict(self.confined)
        return other

    def within(self, mask: int) -> NodeCapacity:
        """What of it guests have that a cpuset confines to some CPUs: a copy. CPUs to which others
        are confined that float there are not dedicated: those may have no other."""
        other = self.copy()
        needed = 0
        for own, load in self.confined.items():
            needed |= own if own != mask and load > TINY else 0
        other._set(self.free & mask & ~needed, self.shared & mask)
        other._at_first = (self._at_first[0] & mask, self._at_first[1] & mask)
        other.owned &= mask
        other.load = self._part(self.load - sum(self.confined.values()), self.shared, mask)
        for own, load in self.confined.items():
            other.load += self._part(load, own & self.shared, mask)
        return other

    @staticmethod
    def _part(load: float, over: int, mask: int) -> float:
        """Of a load over some CPUs that on those of a mask."""
        return load * count(over & mask) / (count(over) or 1)

    @property
    def shared_at_first(self) -> int:
        """What was shared before anything was dedicated."""
        return self._at_first[1]

    @property
    def kinds(self) -> frozenset[tuple[int, float]]:
        """The capacities of its cores, each with its part of them."""
        cores: dict[int, int] = {}
        for cluster in self.grid.clusters:
            cores[cluster.capacity] = cores.get(cluster.capacity, 0) + len(cluster.cores)
        total = sum(cores.values())
        return frozenset((kind, round(number / total, 3)) for kind, number in cores.items())

    @property
    def slack(self) -> float:
        """Shared CPUs that floating guests do not need."""
        return self.shared_count - self.load + TINY

    @property
    def yields(self) -> tuple[CoreYield, CoreYield, int]:
        """What busy threads get of the shared CPUs, now and before any was dedicated, and how many
        CPUs these are: cores of more than two threads yield the same with fewer."""
        if self._both is None:
            now, first = self.yield_of(self.shared), self.yield_of(self.shared_at_first)
            self._both = now, first, self.shared_count
        return self._both

    def yield_of(self, mask: int) -> CoreYield:
        """What busy threads get of CPUs of it; kept, also for copies."""
        found = self._yields.get(mask)
        if found is None:
            found = self._yields[mask] = core_yield.of_node(self.grid, mask)
        return found

    def spare(self, crowding: bool) -> float:
        """Shared CPUs that may be taken from the floating guests: those that they do not need, or
        all but one."""
        need = min(self.load, 1) if crowding else self.load
        return self.shared_count - need + TINY

    @property
    def costs_shared(self) -> bool:
        """Whether dedicating a CPU takes it from the shared ones."""
        return not self.grid.isolated

    def dedicable(self, smt: Smt, crowding: bool = False) -> int:
        """vCPUs that could each have a CPU here; crowding: floating guests need only keep one."""
        if smt is Smt.PREFER:
            if self.grid.isolated:
                return self.free_count
            return min(self.free_count, int(self.spare(crowding)))
        sizes = sorted(map(count, self.whole_cores(smt)), reverse=True)
        slack = self.spare(crowding) if self.costs_shared else math.inf
        return _isolable(sizes, slack) if smt is Smt.ISOLATE else _requirable(sizes, slack)

    def whole_cores(self, smt: Smt) -> list[int]:
        """Cores of which nothing is taken; with several threads where they are required."""
        least = 2 if smt is Smt.REQUIRE else 1
        return [
            core
            for cluster, free in zip(self.grid.clusters, self.free_in)
            if free and cluster.threads >= least
            for core in cluster.cores
            if core & self.free == core and count(core) >= least
        ]

    def floatable(self, overcommit: float) -> float:
        """vCPUs that could float here."""
        return self.slack * overcommit

    def take(self, mask: int) -> None:
        """Dedicate CPUs, or keep them idle for who has the rest of their core."""
        self._set(self.free & ~mask, self.shared & ~mask)

    def give_back(self, mask: int) -> None:
        """What was taken is free again."""
        free, shared = self._at_first
        self._set(self.free | mask & free, self.shared | mask & shared)

    def _set(self, free: int, shared: int) -> None:
        self.free, self.shared = free, shared
        self._both = None
        self.shared_count = count(self.shared)
        self.free_in = [count(cluster.mask & self.free) for cluster in self.grid.clusters]
        self.free_count = sum(self.free_in)


def _isolable(sizes: list[int], slack: float) -> int:
    """vCPUs that could have a core each, whichever cores that are: the largest cost the most."""
    costs = accumulate(sizes)
    return sum(cost <= slack for cost in costs)


def _requirable(sizes: list[int], slack: float) -> int:
    """vCPUs that cores could hold, of which the last may stay partly idle."""
    if not sizes:
        return 0
    largest = sizes[0]
    if slack == math.inf:
        return sum(sizes)
    if sizes[-1] == largest:
        return min(sum(sizes), int(slack / largest) * largest)
    return max(0, min(sum(sizes), int(slack) - largest + 1))


@dataclass(frozen=True)
class MemoryShare:
    """Memory of a guest on one node: KiB of ordinary pages, and huge pages by size in KiB.

    KiB are whole ones, as sums of fractions would depend on the order of guests.
    """

    node: int
    memory: float
    huge: Mapping[int, float]


class NodeMemory:
    """Memory by node: KiB of ordinary pages, and numbers of huge pages by size.

    A host that says nothing about its memory has room for all.
    """

    def __init__(self, host: Host) -> None:
        told = any(node.memory for node in host.nodes)
        self.memory = {node.id: _ordinary(node) if told else math.inf for node in host.nodes}
        self.huge: dict[tuple[int, int], float] = {
            (node.id, size): pages for node in host.nodes for size, pages in _pools(node).items()
        }

    def copy(self) -> NodeMemory:
        """Another with the same content."""
        other: NodeMemory = object.__new__(NodeMemory)
        other.memory = dict(self.memory)
        other.huge = dict(self.huge)
        return other

    def fits(self, memory: float, huge: Mapping[int, float], memory_node: int) -> bool:
        """Whether so much is there."""
        if memory and memory > self.memory.get(memory_node, 0) + TINY:
            return False
        return not huge or all(
            pages <= self.huge.get((memory_node, size), 0) + TINY for size, pages in huge.items()
        )

    def charge(self, shares: Iterable[MemoryShare], sign: int = 1) -> None:
        """Use memory up; sign -1 gives it back."""
        for share in shares:
            self.memory[share.node] -= sign * share.memory
            for size, pages in share.huge.items():
                key = (share.node, size)
                self.huge[key] = self.huge.get(key, 0) - sign * pages


def _ordinary(node: NumaNode) -> float:
    """KiB that guests of ordinary pages could have: what is free, else all but the pools."""
    if node.available is not None:
        return node.available
    pools = sum(size * pages for size, pages in _pools(node).items())
    return max(0, node.memory - pools)


def _pools(node: NumaNode) -> Mapping[int, int]:
    found = node.free_pages if node.free_pages is not None else node.pages
    return {size: pages for size, pages in found.items() if size > 64}
