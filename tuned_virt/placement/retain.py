# SPDX-License-Identifier: GPL-2.0-or-later
"""Placements of ours that are in force: kept where they still hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from tuned_virt.kernel import cpuset
from tuned_virt.placement.assignment import Assignment, NodeChoice, assign, release, reserve
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import Placement, PlacementKind
from tuned_virt.placement.node_capacity import count
from tuned_virt.placement.policy import Smt
from tuned_virt.placement.single_node import places


def retain(
    host_capacity: HostCapacity, wanted: GuestDemand, current: Placement
) -> Assignment | None:
    """The outcome that keeps a placement, settled; None where it no longer holds.

    vCPUs that have come since get seats beside the others.
    """
    if current.kind is PlacementKind.DEDICATED and wanted.dedicated:
        return _keep_dedicated(host_capacity, wanted, current)
    if current.kind is PlacementKind.SHARED:
        return _keep_shared(host_capacity, wanted, current)
    return None


def promoted(host_capacity: HostCapacity, floating: Assignment) -> Assignment | None:
    """CPUs for a guest that floats only because its node had none to dedicate; None if it still
    has none, and nothing has changed then. Call it when all others are settled."""
    wanted, vcpus_by_node = floating.wanted, floating.vcpus_by_node
    if len(vcpus_by_node) > 1:
        return None
    [node_index] = vcpus_by_node
    release(host_capacity, floating)
    if host_capacity.free_vcpus(node_index, wanted.policy, True) < len(wanted.whole.vcpus):
        reserve(host_capacity, floating)
        return None
    why = f"node {host_capacity.grid.nodes[node_index].id}: it has CPUs to dedicate now"
    return assign(
        host_capacity, wanted, NodeChoice(vcpus_by_node, why, floating.memory_nodes), True
    )


def _keep_shared(
    host_capacity: HostCapacity, wanted: GuestDemand, current: Placement
) -> Assignment | None:
    vcpus_by_node = _places(host_capacity, wanted, current.vcpus)
    if vcpus_by_node is None or not set(vcpus_by_node) <= set(places(host_capacity, wanted)):
        return None
    if any(
        host_capacity.free_vcpus(node_index, wanted.policy, False) < len(vcpus)
        for node_index, vcpus in vcpus_by_node.items()
    ):
        return None
    return reserve(
        host_capacity,
        Assignment(
            wanted,
            PlacementKind.SHARED,
            current.why,
            vcpus_by_node,
            memory_nodes=_banks(host_capacity, wanted, current, vcpus_by_node),
        ),
    )


def _places(
    host_capacity: HostCapacity, wanted: GuestDemand, vcpus: Mapping[int, str]
) -> dict[int, tuple[int, ...]] | None:
    """vCPUs by place, from the first CPU of each one's set; None where that CPU is gone."""
    of_text: dict[str, int | None] = {}
    vcpus_by_node: dict[int, list[int]] = {}
    new = []
    for vcpu in wanted.whole.vcpus:
        text = vcpus.get(vcpu)
        if text is None:
            new.append(vcpu)
            continue
        if text not in of_text:
            of_text[text] = _place(host_capacity, text)
        node_index = of_text[text]
        if node_index is None:
            return None
        vcpus_by_node.setdefault(node_index, []).append(vcpu)
    if new and vcpus_by_node:
        fullest = max(
            vcpus_by_node, key=lambda node_index: (len(vcpus_by_node[node_index]), -node_index)
        )
        vcpus_by_node[fullest] = sorted((*vcpus_by_node[fullest], *new))
    return {node_index: tuple(some) for node_index, some in sorted(vcpus_by_node.items())} or None


def _place(host_capacity: HostCapacity, text: str) -> int | None:
    """The place of a set's first CPU that is online."""
    for first in re.findall(r"\d{1,6}", text):
        if int(first) in host_capacity.grid.where:
            return host_capacity.grid.where[int(first)][0]
    return None


def _banks(
    host_capacity: HostCapacity,
    wanted: GuestDemand,
    current: Placement,
    vcpus_by_node: Mapping[int, tuple[int, ...]],
) -> tuple[int, ...]:
    """Nodes of its memory where they are more than its seats'."""
    if current.memory is None:
        return ()
    of_seats = {host_capacity.grid.nodes[node_index].memory_node for node_index in vcpus_by_node}
    try:
        known = cpuset.parse(current.memory.nodeset) & host_capacity.host.by_id.keys()
    except ValueError:
        return ()
    return tuple(sorted(known)) if known > of_seats else ()


def _keep_dedicated(
    host_capacity: HostCapacity, wanted: GuestDemand, current: Placement
) -> Assignment | None:
    cpus = {}
    for vcpu in wanted.whole.vcpus:
        text = current.vcpus.get(vcpu)
        if text is not None:
            if not text.isdecimal() or int(text) not in host_capacity.grid.where:
                return None
            cpus[vcpu] = int(text)
    masks = _masks(host_capacity, wanted, cpus)
    vcpus_by_node: dict[int, tuple[int, ...]] = {}
    for vcpu, cpu in sorted(cpus.items()):
        node_index = host_capacity.grid.where[cpu][0]
        vcpus_by_node[node_index] = (*vcpus_by_node.get(node_index, ()), vcpu)
    if (
        masks is None
        or not vcpus_by_node
        or not set(vcpus_by_node) <= set(places(host_capacity, wanted))
    ):
        return None
    new = [vcpu for vcpu in wanted.whole.vcpus if vcpu not in cpus]
    assignment = Assignment(
        wanted,
        PlacementKind.DEDICATED,
        current.why,
        dict(sorted(vcpus_by_node.items())),
        cpus,
        masks,
        _banks(host_capacity, wanted, current, vcpus_by_node),
    )
    return _extended(host_capacity, assignment, new) if new else reserve(host_capacity, assignment)


def _masks(
    host_capacity: HostCapacity, wanted: GuestDemand, cpus: Mapping[int, int]
) -> dict[int, int] | None:
    """CPUs taken by place, with those that smt= keeps idle; None where they cannot be had."""
    masks: dict[int, int] = {}
    for cpu in cpus.values():
        node_index, bit = host_capacity.grid.where[cpu]
        if masks.get(node_index, 0) >> bit & 1:
            return None
        masks[node_index] = masks.get(node_index, 0) | 1 << bit
    for node_index, mask in masks.items():
        node_capacity = host_capacity.node_capacities[node_index]
        cores = _cores(node_capacity.node.core_of, mask)
        if wanted.policy.smt is Smt.ISOLATE and any(count(core & mask) > 1 for core in cores):
            return None
        if wanted.policy.smt is Smt.REQUIRE and any(count(core) == 1 for core in cores):
            return None
        if wanted.policy.smt is not Smt.PREFER:
            mask = masks[node_index] = sum(cores)  # noqa: PLW2901 - the mask with its cores filled up
        cost = count(mask) if node_capacity.costs_shared else 0
        if mask & ~node_capacity.free or cost > node_capacity.slack:
            return None
    return masks


def _cores(core_of: tuple[int, ...], mask: int) -> set[int]:
    return {core for bit, core in enumerate(core_of) if mask >> bit & 1}


def _extended(
    host_capacity: HostCapacity, assignment: Assignment, new: list[int]
) -> Assignment | None:
    """The same with CPUs for further vCPUs on its one node; None where that has none."""
    if len(assignment.vcpus_by_node) > 1:
        return None
    [node_index] = assignment.vcpus_by_node
    reserve(host_capacity, assignment)
    if host_capacity.free_vcpus(node_index, assignment.wanted.policy, True) < len(new):
        release(host_capacity, assignment)
        return None
    choice = NodeChoice({node_index: tuple(new)}, assignment.why)
    more = assign(host_capacity, _beside(assignment.wanted, new), choice, True)
    assignment.cpus = {**assignment.cpus, **more.cpus}
    assignment.masks = {node_index: assignment.masks[node_index] | more.masks[node_index]}
    assignment.vcpus_by_node = {node_index: assignment.wanted.whole.vcpus}
    return assignment


def _beside(wanted: GuestDemand, vcpus: list[int]) -> GuestDemand:
    """What further vCPUs of a guest need: CPUs; its memory has been counted."""
    return replace(wanted, whole=replace(wanted.whole, vcpus=tuple(vcpus), memory=0, huge={}))
