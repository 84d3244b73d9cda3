# SPDX-License-Identifier: GPL-2.0-or-later
"""What was decided for one guest, and what that uses of the board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuned_virt.placement.cores import allot
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity, VcpusByNode
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.node_capacity import MemoryShare


@dataclass
class Assignment:
    """A guest's seats.

    cpus    vCPU → CPU number, for a dedicated guest
    masks   place → CPUs that it takes from all others, idle ones of its cores included
    banks   nodes of its memory, where those are not simply the seats'

    """

    wanted: GuestDemand
    kind: PlacementKind
    why: str
    vcpus_by_node: VcpusByNode = field(default_factory=dict)
    cpus: Mapping[int, int] = field(default_factory=dict)
    masks: Mapping[int, int] = field(default_factory=dict)
    memory_nodes: tuple[int, ...] = ()

    shares: list[MemoryShare] = field(default_factory=list)

    @property
    def dedicated(self) -> bool:
        """Whether its vCPUs have CPUs of their own."""
        return self.kind is PlacementKind.DEDICATED


def reserve(host_capacity: HostCapacity, assignment: Assignment) -> Assignment:
    """Take from the board what an outcome uses."""
    if not assignment.shares:
        assignment.shares = host_capacity.shares(
            assignment.wanted, assignment.vcpus_by_node, assignment.memory_nodes
        )
    host_capacity.memory.charge(assignment.shares)
    for node_index, mask in assignment.masks.items():
        host_capacity.node_capacities[node_index].take(mask)
    if not assignment.dedicated:
        for node_index, vcpus in assignment.vcpus_by_node.items():
            host_capacity.node_capacities[node_index].load += (
                len(vcpus) / assignment.wanted.policy.overcommit
            )
    return assignment


def release(host_capacity: HostCapacity, assignment: Assignment) -> None:
    """Give it back."""
    host_capacity.unplaceable.clear()
    host_capacity.memory.charge(assignment.shares, -1)
    for node_index, mask in assignment.masks.items():
        host_capacity.node_capacities[node_index].give_back(mask)
    if not assignment.dedicated:
        for node_index, vcpus in assignment.vcpus_by_node.items():
            host_capacity.node_capacities[node_index].load -= (
                len(vcpus) / assignment.wanted.policy.overcommit
            )


@dataclass(frozen=True)
class NodeChoice:
    """Seats that the board has room for, why those, and the memory's nodes if they are others."""

    vcpus_by_node: VcpusByNode
    why: str
    memory_nodes: tuple[int, ...] = ()


def assign(
    host_capacity: HostCapacity, wanted: GuestDemand, choice: NodeChoice, dedicated: bool
) -> Assignment:
    """The outcome of a choice, settled; CPUs are chosen where they are dedicated."""
    vcpus_by_node, why, memory_nodes = choice.vcpus_by_node, choice.why, choice.memory_nodes
    if not dedicated:
        return reserve(
            host_capacity,
            Assignment(wanted, PlacementKind.SHARED, why, vcpus_by_node, memory_nodes=memory_nodes),
        )
    cpus: dict[int, int] = {}
    masks = {}
    for node_index, vcpus in vcpus_by_node.items():
        node_capacity = host_capacity.node_capacities[node_index]
        bits, idle = allot(node_capacity, len(vcpus), wanted.guest.threads, wanted.policy.smt)
        masks[node_index] = idle | sum(1 << bit for bit in bits)
        cpus.update({vcpu: node_capacity.node.cpus[bit] for vcpu, bit in zip(vcpus, bits)})
    return reserve(
        host_capacity,
        Assignment(wanted, PlacementKind.DEDICATED, why, vcpus_by_node, cpus, masks, memory_nodes),
    )
