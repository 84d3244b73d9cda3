# SPDX-License-Identifier: GPL-2.0-or-later
"""Places one guest: dedicated if it asks for that, floating, or left alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tuned_virt.kernel import cpuset
from tuned_virt.placement import multi_node, single_node
from tuned_virt.placement.assignment import Assignment, NodeChoice
from tuned_virt.placement.balanced import Balanced
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.policy import MemoryMode
from tuned_virt.placement.residents import resident
from tuned_virt.placement.strategy import Crowding, Dedicated, Floating, Strategy


def place_guests(capacity: HostCapacity, demands: Iterable[GuestDemand]) -> dict[str, Assignment]:
    """Assignments by key of the guests, reserved; the hardest guests first.

    Who may take CPUs that floating guests need comes before all that float, also before those that
    float as there are no CPUs for them to have alone.
    """
    ordered = sorted(demands, key=lambda wanted: wanted.hardness)
    tried = ((wanted.guest.key, _dedicate(capacity, wanted)) for wanted in ordered if wanted.crowds)
    made = {key: assignment for key, assignment in tried if assignment}
    for wanted in ordered:
        if wanted.guest.key not in made:
            place = _float if wanted.crowds else place_guest
            made[wanted.guest.key] = place(capacity, wanted)
    return made


def place_guest(capacity: HostCapacity, wanted: GuestDemand) -> Assignment:
    """A guest's assignment, reserved."""
    return _dedicate(capacity, wanted) or _float(capacity, wanted)


def _dedicate(capacity: HostCapacity, wanted: GuestDemand) -> Assignment | None:
    """CPUs of its own for a guest that asks for them; None where it does not or has no room."""
    if not wanted.dedicated:
        return None
    way = Dedicated(capacity.within(wanted.guest), wanted)
    return _attempt(way) or _beyond_memory(way)


def _float(capacity: HostCapacity, wanted: GuestDemand) -> Assignment:
    """A guest that floats, for whatever reason, or is left alone."""
    capacity = capacity.within(wanted.guest)
    lacking = _lacking(Dedicated(capacity, wanted)) if wanted.dedicated else ""
    way = floating(capacity, wanted)
    assignment = _attempt(way) or _beyond_memory(way) or _crowd(capacity, wanted)
    if assignment is None:
        shares = resident(wanted.guest, capacity.host)
        capacity.memory.charge(shares)
        return Assignment(wanted, PlacementKind.UNPLACED, "", shares=shares)
    if lacking:
        assignment.why = f"not dedicated: {lacking}; {assignment.why}"
    return assignment


def _crowd(capacity: HostCapacity, wanted: GuestDemand) -> Assignment | None:
    """A guest overcommitted against itself, where nothing else is left of what `overcommit` allows.

    That of auto floats over all nodes instead.
    """
    if wanted.policy.overcommit is None:
        return None
    way = Crowding(capacity, wanted)
    return _attempt(way) or _beyond_memory(way)


def _lacking(way: Dedicated) -> str:
    """Why there are no CPUs for a guest alone, once all guests have theirs that take them from
    others: the same for all guests alike, and said of the first."""
    if not way.wanted.crowds:
        return single_node.no_room(way)
    known = way.capacity.lacking
    if way.attempt not in known:
        known[way.attempt] = single_node.no_room(way)
    return known[way.attempt]


def floating(capacity: HostCapacity, wanted: GuestDemand) -> Floating:
    """The way in which a guest floats, by its policy."""
    way = Balanced if wanted.policy.overcommit is None else Floating
    return way(capacity, wanted)


def _ways(capacity: HostCapacity, wanted: GuestDemand) -> tuple[Strategy, ...]:
    floats = floating(capacity, wanted)
    return (Dedicated(capacity, wanted), floats) if wanted.dedicated else (floats,)


def unplaced_reason(capacity: HostCapacity, wanted: GuestDemand) -> str:
    """Why a guest is not placed, once all others have their places."""
    capacity = capacity.within(wanted.guest)
    reasons = "; ".join(map(single_node.no_room, _ways(capacity, wanted)))
    most = wanted.policy.overcommit
    floats = floating(capacity, wanted)
    free = [floats.free_vcpus(node_index) for node_index in capacity.nodes_for(wanted)]
    short = most and free and max(free) < len(wanted.whole.vcpus)
    advice = f". Raise vm_overcommit (now {most:g})" if short else ""
    return f"not placed: {reasons}{advice}"


def _attempt(way: Strategy) -> Assignment | None:
    choice = _choice(way)
    return way.assign(choice) if choice else None


def _choice(way: Strategy) -> NodeChoice | None:
    """Where a guest finds room; what finds none is noted, as others like it need not look."""
    if way.attempt in way.capacity.unplaceable:
        return None
    choice = single_node.choose(way) or _several(way)
    if choice is None:
        way.capacity.unplaceable.add(way.attempt)
    return choice


def _several(way: Strategy) -> NodeChoice | None:
    """Several nodes, for vCPUs and memory or for memory alone."""
    lacking = single_node.no_room(way)
    spread = multi_node.spread(way)
    if spread:
        even = way.levelled(spread.vcpus_by_node)
        if multi_node.memory_fits(way, even):
            spread = spread._replace(vcpus_by_node=even)
        why = _why_several(way, spread, lacking)
        return NodeChoice(spread.vcpus_by_node, why, homes=spread.homes)
    wide = multi_node.widen(way)
    if wide:
        vcpus_by_node, memory_nodes = wide
        spans = f"its memory spans nodes {cpuset.text(memory_nodes)}"
        why = f"{_names(way, vcpus_by_node)}: {lacking}; {spans}"
        return NodeChoice(vcpus_by_node, why, memory_nodes if way.wanted.memory_is_ours else ())
    return None


def _why_several(way: Strategy, spread: multi_node.Spread, lacking: str) -> str:
    why = f"{_names(way, spread.vcpus_by_node)}: {lacking}"
    if way.wanted.uniform or way.wanted.whole.allowed:
        why = f"{why}; these are the fewest and nearest nodes that have it"
    if spread.homes:
        nodes = cpuset.text(spread.homes.values())
        why = f"{why}; memory of its cells without vCPUs is on node {nodes}"
    return why


def _beyond_memory(way: Strategy) -> Assignment | None:
    """With overcommit=auto, or memory=none, a guest for which no nodes have the memory: where its
    vCPUs have room, as not all of its memory need be in use; else, with auto and if it may float,
    over all nodes. None for huge pages that it does not have yet and that are not free."""
    wanted = way.wanted
    policy = wanted.policy
    if policy.overcommit is not None and policy.memory is not MemoryMode.NONE:
        return None
    if wanted.whole.huge and not wanted.guest.resident:
        return None
    light = type(way)(way.capacity, _without_memory(wanted))
    choice = _choice(light)
    if choice:
        gib = f"{wanted.whole.memory / 2**20:.1f} GiB"
        why = f"{choice.why}; memory is overcommitted: no node has the {gib} left that it may use"
        return way.assign(replace(choice, why=why))
    if isinstance(way, Balanced):
        return way.anywhere(f"floats over all nodes: {single_node.no_room(light)}")
    return None


def _without_memory(wanted: GuestDemand) -> GuestDemand:
    whole, cells = wanted.whole, wanted.cells
    return replace(
        wanted,
        whole=replace(whole, memory=0, huge={}),
        cells=tuple(replace(cell, memory=0, huge={}) for cell in cells),
    )


def _names(way: Strategy, vcpus_by_node: Iterable[int]) -> str:
    numbers = [str(way.capacity.grid.nodes[node_index].id) for node_index in vcpus_by_node]
    if len(numbers) == 1:
        return f"node {numbers[0]}"
    return f"nodes {', '.join(numbers[:-1])} and {numbers[-1]}"
