# SPDX-License-Identifier: GPL-2.0-or-later
"""Places one guest: dedicated if it asks for that, floating, or left alone."""

from __future__ import annotations

from collections.abc import Iterable

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import multi_node, single_node
from tuned_virt.placement.assignment import Assignment, NodeChoice, assign
from tuned_virt.placement.demand import GuestDemand, demand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.node_capacity import MemoryShare
from tuned_virt.placement.policy import PlacementPolicy

ANY = PlacementPolicy()


def place_guest(host_capacity: HostCapacity, wanted: GuestDemand) -> Assignment:
    """A guest's outcome, settled: dedicated if it asks for that, floating, or left alone."""
    for dedicated in _ways(wanted):
        attempt = (wanted.shape, dedicated)
        assignment = (
            None
            if attempt in host_capacity.unplaceable
            else _attempt(host_capacity, wanted, dedicated)
        )
        if assignment:
            if wanted.dedicated and not dedicated:
                lacking = single_node.no_room(host_capacity, wanted, True)
                assignment.why = f"not dedicated, as {lacking}; {assignment.why}"
            return assignment
        host_capacity.unplaceable.add(attempt)
    assignment = Assignment(
        wanted, PlacementKind.UNPLACED, "", shares=resident(wanted.guest, host_capacity.host)
    )
    host_capacity.memory.charge(assignment.shares)
    return assignment


def _ways(wanted: GuestDemand) -> tuple[bool, ...]:
    return (True, False) if wanted.dedicated else (False,)


def left_alone(host_capacity: HostCapacity, wanted: GuestDemand) -> str:
    """Why a guest is left alone, once all others have their places."""
    reasons = [single_node.no_room(host_capacity, wanted, dedicated) for dedicated in _ways(wanted)]
    together = ", nor have several together" if len(host_capacity.node_capacities) > 1 else ""
    return f"left alone: {'; '.join(reasons)}{together}"


def _attempt(
    host_capacity: HostCapacity, wanted: GuestDemand, dedicated: bool
) -> Assignment | None:
    choice = single_node.choose(host_capacity, wanted, dedicated)
    if choice:
        return assign(host_capacity, wanted, choice, dedicated)
    lacking = single_node.no_room(host_capacity, wanted, dedicated)
    spread = multi_node.spread(host_capacity, wanted, dedicated)
    if spread:
        names = _names(host_capacity, spread)
        why = f"{names}: {lacking}, these are the fewest and nearest that have"
        return assign(host_capacity, wanted, NodeChoice(spread, why), dedicated)
    wide = multi_node.widen(host_capacity, wanted, dedicated)
    if wide:
        vcpus_by_node, memory_nodes = wide
        names = _names(host_capacity, vcpus_by_node)
        why = f"{names}: {lacking}, its memory spans nodes {cpuset.text(memory_nodes)}"
        held = memory_nodes if wanted.memory_is_ours else ()
        return assign(host_capacity, wanted, NodeChoice(vcpus_by_node, why, held), dedicated)
    return None


def _names(host_capacity: HostCapacity, vcpus_by_node: Iterable[int]) -> str:
    numbers = [str(host_capacity.grid.nodes[node_index].id) for node_index in vcpus_by_node]
    if len(numbers) == 1:
        return f"node {numbers[0]}"
    return f"nodes {', '.join(numbers[:-1])} and {numbers[-1]}"


def resident(guest: Guest, host: Host) -> list[MemoryShare]:
    """Where its memory is now; huge pages by the size that it asks for."""
    whole = demand(guest, ANY, host.huge_page).whole if guest.huge_pages else None
    size = next(iter(whole.huge), 0) if whole else 0
    return [
        MemoryShare(node, 0 if size else kib, {size: kib / size} if size else {})
        for node, kib in sorted(guest.resident.items())
        if node in host.by_id and kib > 0
    ]
