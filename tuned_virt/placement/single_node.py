# SPDX-License-Identifier: GPL-2.0-or-later
"""One node for a whole guest: which, and why that one."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.model.guest import Guest
from tuned_virt.placement.assignment import NodeChoice
from tuned_virt.placement.cores import fit
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.node_capacity import TINY

Score = tuple[float, ...]
"""Smaller is better: distance of PCI devices, KiB to move, then
dedicated: LLCs spanned, cores torn apart, CPUs left in the LLC, CPUs left in the node;
floating: the node's load with the guest, in shared CPUs needed per shared CPU."""


def choose(host_capacity: HostCapacity, wanted: GuestDemand, dedicated: bool) -> NodeChoice | None:
    """The best node that has room for all of a guest; None where there is none."""
    rate = _rate_dedicated if dedicated else _rate_floating
    scored = list(rate(host_capacity, wanted, _with_memory(host_capacity, wanted)))
    if not scored:
        return None
    best = min(scored)
    scored.remove(best)
    why = _why(host_capacity, wanted, best, min(scored, default=None), dedicated)
    return NodeChoice({best[1]: wanted.whole.vcpus}, why)


def _with_memory(host_capacity: HostCapacity, wanted: GuestDemand) -> list[int]:
    """Places where its memory fits. Here and below loops are plain: they run for each guest and
    node."""
    whole, memory = wanted.whole, host_capacity.memory.memory
    nodes = host_capacity.grid.nodes
    fitting = [
        p
        for p in places(host_capacity, wanted)
        if memory.get(nodes[p].memory_node, 0) >= whole.memory
    ]
    if whole.huge:
        return [
            node_index for node_index in fitting if host_capacity.fits_memory(whole, node_index)
        ]
    return fitting


def _rate_floating(
    host_capacity: HostCapacity, wanted: GuestDemand, possible: list[int]
) -> Iterator[tuple[Score, int]]:
    vcpus, guest = len(wanted.whole.vcpus), wanted.guest
    need = vcpus / wanted.policy.overcommit
    tied = bool(guest.devices or guest.resident)
    for node_index in possible:
        node_capacity = host_capacity.node_capacities[node_index]
        load = node_capacity.load + need
        if load <= node_capacity.shared_count + TINY or host_capacity.uncapped:
            ties = _ties(host_capacity, guest, node_index) if tied else (0, 0)
            yield (*ties, round(load / (node_capacity.shared_count or 1), 6)), node_index


def _rate_dedicated(
    host_capacity: HostCapacity, wanted: GuestDemand, possible: list[int]
) -> Iterator[tuple[Score, int]]:
    vcpus, guest, smt = len(wanted.whole.vcpus), wanted.guest, wanted.policy.smt
    tied = bool(guest.devices or guest.resident)
    for node_index in possible:
        node_capacity = host_capacity.node_capacities[node_index]
        if node_capacity.free_count >= vcpus and node_capacity.dedicable(smt) >= vcpus:
            ties = _ties(host_capacity, guest, node_index) if tied else (0, 0)
            spans, torn, over = fit(node_capacity, vcpus, guest.threads)
            first = (torn, spans) if guest.threads > 1 else (spans, torn)
            yield (*ties, *first, over, node_capacity.free_count - vcpus), node_index


def _ties(host_capacity: HostCapacity, guest: Guest, node_index: int) -> tuple[int, int]:
    return host_capacity.device_distance(guest, node_index), host_capacity.to_move(
        guest, node_index
    )


def places(host_capacity: HostCapacity, wanted: GuestDemand) -> list[int]:
    """Nodes that may take the guest: its owner's, and for memory that cannot move, where it is."""
    found = host_capacity.allowed(wanted.whole)
    guest = wanted.guest
    if not guest.resident or guest.movable:
        return found
    there = [
        node_index
        for node_index in found
        if guest.resident.get(host_capacity.grid.nodes[node_index].memory_node)
    ]
    return there or found


def _why(
    host_capacity: HostCapacity,
    wanted: GuestDemand,
    best: tuple[Score, int],
    second: tuple[Score, int] | None,
    dedicated: bool,
) -> str:
    node = host_capacity.grid.nodes[best[1]].id
    if second is None:
        only = (
            "the only node"
            if len(host_capacity.node_capacities) == 1
            else "the only node with room"
        )
        return f"node {node}: {only}"
    other = host_capacity.grid.nodes[second[1]].id
    reason = _reason(wanted, best[0], second[0], dedicated)
    return f"node {node}, before node {other}: {reason}"


def _reason(wanted: GuestDemand, best: Score, second: Score, dedicated: bool) -> str:
    decided = next((at for at, (a, b) in enumerate(zip(best, second)) if a != b), None)
    if decided is None:
        return "both are equal, so the lower number"
    a, b = best[decided], second[decided]
    if decided == 0:
        return f"nearer to {_devices(wanted)} (distance +{a:g}, against +{b:g})"
    if decided == 1:
        return f"{a / 2**20:.1f} GiB of its memory are elsewhere, against {b / 2**20:.1f}"
    if not dedicated:
        return f"{100 * a:.0f} % of its shared CPUs needed then, against {100 * b:.0f} %"
    words = ["it spans {} LLCs, against {}", "{} of its cores torn apart, against {}"]
    if wanted.guest.threads > 1:
        words.reverse()
    words += ["{} CPUs of an LLC left over, against {}", "{} free CPUs left over, against {}"]
    return words[decided - 2].format(int(a), int(b))


def _devices(wanted: GuestDemand) -> str:
    devices = wanted.guest.devices
    return f"its device {devices[0]}" if len(devices) == 1 else f"its {len(devices)} devices"


def no_room(host_capacity: HostCapacity, wanted: GuestDemand, dedicated: bool) -> str:
    """Why no node takes all of a guest: what is missing where most of it is there."""
    vcpus = len(wanted.whole.vcpus)
    node_capacities = [
        (host_capacity.free_vcpus(node_index, wanted.policy, dedicated), -node_index)
        for node_index in places(host_capacity, wanted)
    ]
    if not node_capacities:
        return "its numatune leaves it no node with CPUs"
    most, node_index = max(node_capacities)
    kind = _kind(wanted, dedicated)
    if most < vcpus:
        node = host_capacity.grid.nodes[-node_index].id
        return f"no node has {vcpus} {kind} (node {node} has most: {max(most, 0)})"
    sizes = wanted.whole.huge
    if sizes:
        pages = ", ".join(f"{count} huge pages of {size} KiB" for size, count in sizes.items())
        return f"no node with {vcpus} {kind} has {pages} free"
    gib = wanted.whole.memory / 2**20
    return f"no node with {vcpus} {kind} has {gib:.1f} GiB of memory for it"


def _kind(wanted: GuestDemand, dedicated: bool) -> str:
    if not dedicated:
        return f"vCPUs' room at overcommit={wanted.policy.overcommit:g}"
    return {
        "prefer": "CPUs to dedicate",
        "require": "CPUs of whole cores with SMT to dedicate",
        "isolate": "whole cores to dedicate",
    }[wanted.policy.smt.value]
