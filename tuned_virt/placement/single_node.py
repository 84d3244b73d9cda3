# SPDX-License-Identifier: GPL-2.0-or-later
"""One node for a whole guest: which, and why that one."""

from __future__ import annotations

from tuned_virt.placement.assignment import NodeChoice
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.strategy import Score, Strategy

TIES = 2
"""Entries of a score that are no strategy's own."""


def choose(way: Strategy) -> NodeChoice | None:
    """The best node that has room for all of a guest; None where there is none."""
    scored = list(way.rate(_with_memory(way.capacity, way.wanted)))
    if not scored:
        return None
    best = min(scored)
    scored.remove(best)
    return NodeChoice({best[1]: way.wanted.whole.vcpus}, _why(way, best, min(scored, default=None)))


def _with_memory(capacity: HostCapacity, wanted: GuestDemand) -> list[int]:
    """Nodes where its memory fits. Plain loops, as in `Strategy.rate`: they run for each guest and
    node."""
    whole, memory, nodes = wanted.whole, capacity.memory.memory, capacity.grid.nodes
    if whole.allowed is not None:
        return [at for at in capacity.nodes_for(wanted) if capacity.fits_memory(whole, at)]
    fitting = [
        node_index
        for node_index in capacity.nodes_for(wanted)
        if not whole.memory or memory.get(nodes[node_index].memory_node, 0) >= whole.memory
    ]
    if whole.huge:
        return [node_index for node_index in fitting if capacity.fits_memory(whole, node_index)]
    return fitting


def _why(way: Strategy, best: tuple[Score, int], second: tuple[Score, int] | None) -> str:
    nodes = way.capacity.grid.nodes
    node = f"node {nodes[best[1]].id}"
    if second is None:
        return f"{node}: the only node" + (" with room" if len(nodes) > 1 else "")
    return f"{node} rather than node {nodes[second[1]].id}: {_reason(way, best[0], second[0])}"


def _reason(way: Strategy, best: Score, second: Score) -> str:
    decided = next((at for at, (a, b) in enumerate(zip(best, second)) if a != b), None)
    if decided is None:
        return "both nodes fit equally well, so the lower-numbered one is used"
    a, b = best[decided], second[decided]
    if decided == (0 if way.wanted.guest.movable else 1):
        return f"nearer to {_ties(way)} (distance +{a:g}, compared with +{b:g})"
    if decided < TIES:
        return f"{a / 2**20:.1f} GiB of its memory is elsewhere, compared with {b / 2**20:.1f}"
    return way.reason(decided - TIES, a, b)


def _ties(way: Strategy) -> str:
    guest, devices = way.wanted.guest, way.wanted.guest.devices
    named = [f"its device {devices[0]}" if len(devices) == 1 else f"its {len(devices)} devices"]
    if guest.owned.emulator or guest.owned.iothreads:
        named.append("the CPUs to which its owner pinned its emulator thread or IOThreads")
    if way.wanted.whole.allowed and not way.capacity.allowed(way.wanted.whole):
        named.append("the memory that its numatune names, on nodes without CPUs")
    elif way.capacity.lacks_memory:
        named.append("memory, which not every node has")
    return " and ".join(named if devices else named[1:])


def no_room(way: Strategy) -> str:
    """Why no node takes all of a guest: what is missing where most of it is there."""
    capacity, whole = way.capacity, way.wanted.whole
    free = [(way.free_vcpus(index), -index) for index in capacity.nodes_for(way.wanted)]
    if not free:
        if not way.wanted.uniform:
            return "its numatune puts its cells on different nodes"
        return "its numatune allows no node of this host"
    most, node_index = max(free)
    needed = way.room(len(whole.vcpus))
    if most < len(whole.vcpus):
        node = capacity.grid.nodes[-node_index].id
        return f"it needs {needed}; node {node} has the most ({max(most, 0)}){way.measure}"
    if whole.huge:
        pages = ", ".join(f"{count} huge pages of {size} KiB" for size, count in whole.huge.items())
        return f"no node with {needed} has {pages} free"
    return f"no node with {needed} has {whole.memory / 2**20:.1f} GiB of memory for it"
