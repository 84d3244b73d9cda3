# SPDX-License-Identifier: GPL-2.0-or-later
"""Floating guests on a host that may be as full as it likes: overcommit=auto.

All are placed, each where it leaves the nodes most level, and none is confined where that takes
more than a tenth of the cores from it or its neighbours, whether it alone is busy or all are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from tuned_virt.placement.assignment import Assignment, reserve
from tuned_virt.placement.core_yield import SMT_GAIN, CoreYield
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import UNCAPPED, HostCapacity, VcpusByNode
from tuned_virt.placement.node_capacity import TINY, NodeCapacity
from tuned_virt.placement.residents import resident
from tuned_virt.placement.strategy import Floating, Score

KEPT = 0.9
"""The part of its cores that a guest keeps at least, against nobody being pinned."""


@dataclass(frozen=True)
class NodeLimits:
    """vCPUs on a node of which none gets less than it should.

    busy      when all are busy; empty: those that are the first there
    alone     of the guest, when it alone is busy; of that node as such, not of what others leave,
              so that what was once right stays so
    capacity  cores that the node can give
    """

    busy: float
    empty: float
    alone: float
    capacity: float

    def room(self, load: float) -> float:
        """vCPUs of the guest beside a load."""
        beside = self.busy - load if load else self.empty
        return beside if beside < self.alone else self.alone


class Balanced(Floating):
    """vCPUs float over the shared CPUs of a node, of several, or of all.

    Score: the node's load with the guest, against what all its shared CPUs can do.
    """

    def __init__(self, capacity: HostCapacity, wanted: GuestDemand) -> None:
        super().__init__(capacity, wanted)
        vcpus = len(wanted.whole.vcpus)
        self._busy = capacity.unconfined_share
        self._alone = capacity.yield_at_first.share(vcpus)
        threads = wanted.guest.threads
        self._thread = (1 + SMT_GAIN) / threads if threads > 1 else 1.0
        self._known: dict[tuple[CoreYield, CoreYield, int], NodeLimits] = {}

    def free_vcpus(self, node_index: int) -> int:
        """vCPUs that a node takes without that anybody loses more than a tenth."""
        node = self.capacity.nodes[node_index]
        return max(0, int(self._limits(node).room(node.load)))

    def keeps(self, node_index: int, vcpus: int) -> bool:
        """See `Strategy`: none is sent away because others have come, where that could move it."""
        if len(self.capacity.nodes) == 1:
            return self.free_vcpus(node_index) >= vcpus
        node = self.capacity.nodes[node_index]
        return bool(node.shared) and self._limits(node).alone >= vcpus

    def crowded(self, node_index: int) -> bool:
        """See `Floating`: others' guests have stopped, and those of this node have not moved."""
        node = self.capacity.nodes[node_index]
        return len(self.capacity.nodes) > 1 and node.load > self._limits(node).busy

    def rate(self, possible: list[int]) -> Iterator[tuple[Score, int]]:
        """See `Strategy`."""
        vcpus, nodes, tied = len(self.wanted.whole.vcpus), self.capacity.nodes, self.tied
        devices = self.capacity.devices_kept(self.wanted.guest)
        known = self._known
        for node_index in possible:
            node = nodes[node_index]
            limits, load = known.get(node.yields) or self._limits(node), node.load
            if limits.room(load) >= vcpus:
                ties = self.ties(node_index) if tied else (0, 0)
                full = round((load + vcpus) / limits.capacity, 6)
                yield (*ties, full, devices[node_index]), node_index

    def _limits(self, node: NodeCapacity) -> NodeLimits:
        """A node's, the same for all nodes of the same cores."""
        key = node.yields
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._limits_of(*key)
        return found

    def _limits_of(self, shared: CoreYield, first: CoreYield, cpus: int) -> NodeLimits:
        capacity = self.capacity
        if not cpus or not capacity.alike:
            return NodeLimits(0, 0, 0, 1)
        busy, alone = shared.most(KEPT * self._busy), first.most(KEPT * self._alone)
        as_threads = min(shared.most(KEPT * self._thread), cpus) if self._thread < 1 else 0
        if len(capacity.nodes) == 1:
            if not capacity.owners_pin:
                alone = UNCAPPED
            busy = UNCAPPED if busy >= capacity.shared_demand else 0
            return NodeLimits(busy, busy, alone + TINY, shared.capacity)
        return NodeLimits(
            busy + TINY,
            max(busy, as_threads) + TINY,
            max(alone, as_threads) + TINY,
            shared.capacity,
        )

    def levelled(self, vcpus_by_node: VcpusByNode) -> VcpusByNode:
        """A guest without cells that is cut over these nodes, cut so that they are level, if any of
        them is then fuller than its cores."""
        nodes, wanted = self.capacity.nodes, self.wanted
        cores = {at: nodes[at].yields[0] for at in vcpus_by_node}
        within_cores = all(
            nodes[at].load + len(vcpus) <= cores[at].most(cores[at].share(0)) + TINY
            for at, vcpus in vcpus_by_node.items()
        )
        if within_cores or wanted.cells or wanted.guest.die:
            return vcpus_by_node
        numbers = dict.fromkeys(vcpus_by_node, 0)
        room = {at: self.free_vcpus(at) for at in numbers}
        rest, step = len(wanted.whole.vcpus), wanted.guest.threads
        while rest:
            more = min(step, rest)
            able = [at for at in numbers if numbers[at] + more <= room[at]]
            if not able:
                return vcpus_by_node
            best = min(
                able, key=lambda at: (nodes[at].load + numbers[at] + more) / cores[at].capacity
            )
            numbers[best] += more
            rest -= more
        ends = list(accumulate(numbers.values()))
        cuts = zip(numbers, [0, *ends], ends)
        return {at: wanted.whole.vcpus[start:end] for at, start, end in cuts if end > start}

    def room(self, vcpus: int) -> str:
        """See `Strategy`."""
        return f"room for {vcpus} vCPU{'s' if vcpus > 1 else ''}"

    @property
    def measure(self) -> str:
        """See `Strategy`."""
        return f" before a guest loses over {100 * (1 - KEPT):.0f} % of its cores"

    def anywhere(self, why: str) -> Assignment | None:
        """vCPUs that may run on all CPUs that are not dedicated, reserved, and memory that stays
        where it is; None where there are no such CPUs."""
        capacity, wanted = self.capacity, self.wanted
        nodes = [at for at, node in enumerate(capacity.nodes) if node.shared | node.owned]
        if not nodes:
            return None
        vcpus_by_node = dict.fromkeys(nodes, wanted.whole.vcpus)
        numbers = tuple(sorted({capacity.grid.nodes[at].memory_node for at in nodes}))
        shares = resident(wanted.guest, capacity.host) or capacity.shares(wanted, {}, numbers)
        made = Assignment(wanted, self.kind, why, vcpus_by_node, shares=shares, anywhere=True)
        return reserve(capacity, made)
