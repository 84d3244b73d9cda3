# SPDX-License-Identifier: GPL-2.0-or-later
"""What was decided for one guest, and what that uses of the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity, VcpusByNode
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.node_capacity import MemoryShare


@dataclass
class Assignment:
    """Where one guest's vCPUs and memory go.

    cpus          vCPU → CPU number, for a dedicated guest
    masks         node index → CPUs that it takes from all others, idle ones of its cores included
    memory_nodes  nodes of its memory, where those are not simply the vCPUs'
    homes         vNUMA cell without vCPUs that are online → node of its memory
    anywhere      every vCPU may run on any of its nodes, and its memory is left alone
    """

    wanted: GuestDemand
    kind: PlacementKind
    why: str
    vcpus_by_node: VcpusByNode = field(default_factory=dict)
    cpus: Mapping[int, int] = field(default_factory=dict)
    masks: Mapping[int, int] = field(default_factory=dict)
    memory_nodes: tuple[int, ...] = ()
    homes: Mapping[int, int] = field(default_factory=dict)
    shares: list[MemoryShare] = field(default_factory=list)
    anywhere: bool = False

    @property
    def dedicated(self) -> bool:
        """Whether its vCPUs have CPUs of their own."""
        return self.kind is PlacementKind.DEDICATED


@dataclass(frozen=True)
class NodeChoice:
    """vCPUs that nodes have room for, why those, and the memory's nodes if they are others; homes
    as of an `Assignment`."""

    vcpus_by_node: VcpusByNode
    why: str
    memory_nodes: tuple[int, ...] = ()
    homes: Mapping[int, int] = field(default_factory=dict)


def assigned(wanted: GuestDemand, kind: PlacementKind, choice: NodeChoice) -> Assignment:
    """What a choice makes of a guest, not reserved yet; a dedicated one's CPUs are to be chosen."""
    return Assignment(
        wanted,
        kind,
        choice.why,
        choice.vcpus_by_node,
        memory_nodes=choice.memory_nodes,
        homes=choice.homes,
    )


def reserve(capacity: HostCapacity, assignment: Assignment) -> Assignment:
    """Take from the host what an assignment uses."""
    capacity = capacity.base
    if not assignment.shares:
        assignment.shares = capacity.shares(
            assignment.wanted,
            assignment.vcpus_by_node,
            assignment.memory_nodes,
            assignment.homes,
        )
    for node_index, mask in assignment.masks.items():
        capacity.nodes[node_index].take(mask)
    _charge(capacity, assignment, 1)
    return assignment


def release(capacity: HostCapacity, assignment: Assignment) -> None:
    """Give it back."""
    capacity = capacity.base
    capacity.unplaceable.clear()
    capacity.lacking.clear()
    for node_index, mask in assignment.masks.items():
        capacity.nodes[node_index].give_back(mask)
    _charge(capacity, assignment, -1)


def _charge(capacity: HostCapacity, assignment: Assignment, sign: int) -> None:
    capacity.memory.charge(assignment.shares, sign)
    each = 1 / assignment.wanted.policy.vcpus_per_cpu
    if assignment.dedicated:
        capacity.floating -= sign * len(assignment.cpus) * each
    elif not assignment.anywhere:
        for node_index, vcpus in assignment.vcpus_by_node.items():
            load = len(vcpus) * each
            node = capacity.nodes[node_index]
            node.load += sign * load
            mask = capacity.mask(assignment.wanted.guest, node_index)
            if mask is not None:
                node.confined[mask] = node.confined.get(mask, 0) + sign * load
