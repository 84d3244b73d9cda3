# SPDX-License-Identifier: GPL-2.0-or-later
"""Places one guest: dedicated if it asks for that, floating, or left alone."""

from __future__ import annotations

from collections.abc import Iterable

from tuned_virt.kernel import cpuset
from tuned_virt.placement import multi_node, single_node
from tuned_virt.placement.assignment import Assignment, NodeChoice
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.residents import resident
from tuned_virt.placement.strategy import Dedicated, Floating, Strategy


def place_guest(capacity: HostCapacity, wanted: GuestDemand) -> Assignment:
    """A guest's assignment, reserved."""
    capacity = capacity.within(wanted.guest)
    lacking = ""
    for way in _ways(capacity, wanted):
        assignment = None if way.attempt in capacity.unplaceable else _attempt(way)
        if assignment:
            if lacking:
                assignment.why = f"not dedicated: {lacking}; {assignment.why}"
            return assignment
        capacity.unplaceable.add(way.attempt)
        lacking = single_node.no_room(way)
    shares = resident(wanted.guest, capacity.host)
    capacity.memory.charge(shares)
    return Assignment(wanted, PlacementKind.UNPLACED, "", shares=shares)


def _ways(capacity: HostCapacity, wanted: GuestDemand) -> tuple[Strategy, ...]:
    floating = Floating(capacity, wanted)
    return (Dedicated(capacity, wanted), floating) if wanted.dedicated else (floating,)


def unplaced_reason(capacity: HostCapacity, wanted: GuestDemand) -> str:
    """Why a guest is not placed, once all others have their places."""
    capacity = capacity.within(wanted.guest)
    reasons = "; ".join(map(single_node.no_room, _ways(capacity, wanted)))
    floating = Floating(capacity, wanted)
    free = [floating.free_vcpus(node_index) for node_index in capacity.nodes_for(wanted)]
    short = free and max(free) < len(wanted.whole.vcpus)
    advice = f". Raise vm_overcommit (now {wanted.policy.overcommit:g})" if short else ""
    return f"not placed: {reasons}{advice}"


def _attempt(way: Strategy) -> Assignment | None:
    choice = single_node.choose(way)
    if choice:
        return way.assign(choice)
    lacking = single_node.no_room(way)
    spread = multi_node.spread(way)
    if spread:
        why = _why_several(way, spread, lacking)
        return way.assign(NodeChoice(spread.vcpus_by_node, why, homes=spread.homes))
    wide = multi_node.widen(way)
    if wide:
        vcpus_by_node, memory_nodes = wide
        spans = f"its memory spans nodes {cpuset.text(memory_nodes)}"
        why = f"{_names(way, vcpus_by_node)}: {lacking}; {spans}"
        ours = memory_nodes if way.wanted.memory_is_ours else ()
        return way.assign(NodeChoice(vcpus_by_node, why, ours))
    return None


def _why_several(way: Strategy, spread: multi_node.Spread, lacking: str) -> str:
    why = f"{_names(way, spread.vcpus_by_node)}: {lacking}"
    if way.wanted.uniform or way.wanted.whole.allowed:
        why = f"{why}; these are the fewest and nearest nodes that have it"
    if spread.homes:
        nodes = cpuset.text(spread.homes.values())
        why = f"{why}; memory of its cells without vCPUs is on node {nodes}"
    return why


def _names(way: Strategy, vcpus_by_node: Iterable[int]) -> str:
    numbers = [str(way.capacity.grid.nodes[node_index].id) for node_index in vcpus_by_node]
    if len(numbers) == 1:
        return f"node {numbers[0]}"
    return f"nodes {', '.join(numbers[:-1])} and {numbers[-1]}"
