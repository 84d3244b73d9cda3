# SPDX-License-Identifier: GPL-2.0-or-later
"""A host while a plan is made: what is free on it, and what seats on it would cost a guest."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement.demand import GuestDemand, GuestPart
from tuned_virt.placement.node_capacity import MemoryShare, NodeCapacity, NodeMemory
from tuned_virt.placement.policy import PlacementPolicy

UNCAPPED = 1 << 30

VcpusByNode = Mapping[int, tuple[int, ...]]
"""Place of a node in the grid → vCPUs there."""


class HostCapacity:
    """The rooms and memory of a host.

    endless   it is one node of which nothing is anybody's own: to float there confines nobody, so
              all guests may, whatever overcommit says
    hopeless  shapes of guests, with whether dedicated, that were tried and found no room: while
              rooms are only taken, others like them need not be tried
    """

    def __init__(
        self, host: Host, node_capacities: list[NodeCapacity], memory_nodes: NodeMemory
    ) -> None:
        self.host = host
        self.grid = host.grid
        self.node_capacities = node_capacities
        self.memory = memory_nodes
        self.uncapped = False
        self.unplaceable: set[tuple[Hashable, bool]] = set()

    def copy(self) -> HostCapacity:
        """Another to try something on."""
        other = HostCapacity(
            self.host,
            [node_capacity.copy() for node_capacity in self.node_capacities],
            self.memory.copy(),
        )
        other.uncapped = self.uncapped
        other.unplaceable = set(self.unplaceable)
        return other

    def free_vcpus(self, node_index: int, policy: PlacementPolicy, dedicated: bool) -> int:
        """vCPUs that a node has room for."""
        node_capacity = self.node_capacities[node_index]
        if dedicated:
            return node_capacity.dedicable(policy.smt)
        if self.uncapped:
            return UNCAPPED
        return int(node_capacity.floatable(policy.overcommit))

    def allowed(self, part: GuestPart) -> list[int]:
        """Places that its owner's numatune leaves it; of memory nodes, those with CPUs."""
        if part.allowed is None:
            return list(range(len(self.node_capacities)))
        return [
            node_index
            for node_index, node in enumerate(self.grid.nodes)
            if node.memory_node in part.allowed
        ]

    def fits_memory(self, part: GuestPart, node_index: int) -> bool:
        """Whether a part's memory is there on the node."""
        return self.memory.fits(part.memory, part.huge, self.grid.nodes[node_index].memory_node)

    # --- what memory seats use ------------------------------------------------------------------

    def shares(
        self, wanted: GuestDemand, vcpus_by_node: VcpusByNode, memory_nodes: Sequence[int] = ()
    ) -> list[MemoryShare]:
        """Memory by bank: with the vCPUs; over `banks`, by their size, where some are given."""
        if memory_nodes:
            total = sum(self.host.by_id[memory_node].memory for memory_node in memory_nodes)
            return [
                _share(wanted.whole, memory_node, self.host.by_id[memory_node].memory / total)
                for memory_node in memory_nodes
            ]
        if len(vcpus_by_node) == 1:
            [node_index] = vcpus_by_node
            return [_share(wanted.whole, self.grid.nodes[node_index].memory_node, 1)]
        parts = wanted.cells or (wanted.whole,)
        first = next(iter(vcpus_by_node))
        return [share for part in parts for share in self._part_shares(part, vcpus_by_node, first)]

    def _part_shares(
        self, part: GuestPart, vcpus_by_node: VcpusByNode, first: int
    ) -> Iterable[MemoryShare]:
        """A part without vCPUs that are online goes with the guest's first."""
        of_place = {
            node_index: len(set(part.vcpus) & set(vcpus))
            for node_index, vcpus in vcpus_by_node.items()
        }
        total = sum(of_place.values())
        if not total:
            of_place, total = {first: 1}, 1
        for node_index, vcpus in of_place.items():
            if vcpus:
                yield _share(part, self.grid.nodes[node_index].memory_node, vcpus / total)

    # --- what places cost a guest ---------------------------------------------------------------

    def device_distance(self, guest: Guest, node_index: int) -> int:
        """Sum of the distances of its PCI devices beyond local ones; unknown ones count nothing."""
        if not guest.devices:
            return 0
        node = self.grid.nodes[node_index].id
        homes = (self.host.devices.get(device, -1) for device in guest.devices)
        return sum(
            self.host.distance(node, home) - self.host.distance(node, node)
            for home in homes
            if home in self.host.by_id
        )

    def to_move(self, guest: Guest, node_index: int) -> int:
        """KiB of its memory that is on other nodes now."""
        if not guest.resident:
            return 0
        memory_node = self.grid.nodes[node_index].memory_node
        return sum(kib for node, kib in guest.resident.items() if node != memory_node)


def _share(part: GuestPart, memory_node: int, fraction: float) -> MemoryShare:
    if fraction == 1:
        return MemoryShare(memory_node, part.memory, part.huge)
    huge = {size: pages * fraction for size, pages in part.huge.items()}
    return MemoryShare(memory_node, part.memory * fraction, huge)
