# SPDX-License-Identifier: GPL-2.0-or-later
"""Placements of ours that are in force: kept where they still hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tuned_virt.kernel import cpuset
from tuned_virt.placement.assignment import Assignment, NodeChoice, release, reserve
from tuned_virt.placement.cores import sibling
from tuned_virt.placement.demand import GuestDemand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import Placement, PlacementKind
from tuned_virt.placement.node_capacity import count
from tuned_virt.placement.place_guest import floating
from tuned_virt.placement.policy import Smt
from tuned_virt.placement.strategy import Dedicated, Floating, Strategy


def retain(capacity: HostCapacity, wanted: GuestDemand, current: Placement) -> Assignment | None:
    """The assignment that keeps a placement, reserved; None where it no longer holds.

    vCPUs that have come since go beside the others.
    """
    capacity = capacity.within(wanted.guest)
    if current.kind is PlacementKind.DEDICATED and wanted.dedicated:
        return _keep_dedicated(Dedicated(capacity, wanted), current)
    if current.kind is PlacementKind.SHARED:
        return _keep_shared(floating(capacity, wanted), current)
    return None


def promoted(capacity: HostCapacity, floats: Assignment) -> Assignment | None:
    """CPUs for a guest that floats only because its node had none to dedicate; None if it still
    has none, and nothing has changed then. Call it when all others are reserved."""
    wanted, vcpus_by_node = floats.wanted, floats.vcpus_by_node
    if len(vcpus_by_node) > 1:
        return None
    [node_index] = vcpus_by_node
    release(capacity, floats)
    way = Dedicated(capacity.within(wanted.guest), wanted)
    if way.free_vcpus(node_index) < len(wanted.whole.vcpus):
        reserve(capacity, floats)
        return None
    why = f"node {capacity.grid.nodes[node_index].id}: it now has CPUs that can be dedicated"
    return way.assign(NodeChoice(vcpus_by_node, why, floats.memory_nodes))


def _keep_shared(way: Floating, current: Placement) -> Assignment | None:
    if _is_anywhere(way, current):
        return way.anywhere(current.why)
    vcpus_by_node = _vcpus_by_node(way, current)
    if vcpus_by_node is None or not vcpus_by_node.keys() <= _possible(way):
        return None
    if not all(_still_has_room(way, index, len(some)) for index, some in vcpus_by_node.items()):
        return None
    memory_nodes, homes = _memory(way, current, vcpus_by_node.keys())
    return way.assign(NodeChoice(vcpus_by_node, current.why, memory_nodes, homes))


def _is_anywhere(way: Floating, current: Placement) -> bool:
    """Whether a placement is over all that is not dedicated. Where that is one node, an owner's
    CPUs are a part of it, or its memory is left alone."""
    texts = set(current.vcpus.values())
    if any(len(way.capacity.nodes_of(text)) > 1 for text in texts):
        return True
    left = [node for node in way.capacity.nodes if node.shared | node.owned]
    if len(left) != 1:
        return False
    owned = set(left[0].grid.numbers(left[0].owned))
    if owned:
        return any(not owned.isdisjoint(cpuset.parse(text)) for text in texts)
    alone = len(way.capacity.nodes) == 1
    return not alone and way.wanted.memory_is_ours and current.memory is None


def _still_has_room(way: Floating, node_index: int, vcpus: int) -> bool:
    """Whether a node has room for vCPUs that are there. One that a cpuset confines has it as long
    as it has a CPU: what others have that reach further depends on who is counted first."""
    if way.capacity is not way.capacity.base:
        return way.capacity.nodes[node_index].shared_count > 0
    return way.keeps(node_index, vcpus)


def _possible(way: Strategy) -> set[int]:
    """Nodes for the guest or a cell of it: its owner may send cells to different ones."""
    parts = (way.wanted.whole, *way.wanted.cells)
    return {at for part in parts for at in way.capacity.nodes_for(way.wanted, part)}


def _vcpus_by_node(way: Strategy, current: Placement) -> dict[int, tuple[int, ...]] | None:
    """From the first CPU of each one's set; None where that CPU is gone."""
    of_text: dict[str, int | None] = {}
    vcpus_by_node: dict[int, list[int]] = {}
    new = []
    for vcpu in way.wanted.whole.vcpus:
        text = current.vcpus.get(vcpu)
        if text is None:
            new.append(vcpu)
            continue
        if text not in of_text:
            of_text[text] = _node_index(way.capacity, text)
        node_index = of_text[text]
        if node_index is None:
            return None
        vcpus_by_node.setdefault(node_index, []).append(vcpu)
    plugged = _plugged(way, current, vcpus_by_node, new) if vcpus_by_node else {}
    return _together(vcpus_by_node, plugged) or None


def _together(
    some: Mapping[int, Sequence[int]], more: Mapping[int, Sequence[int]]
) -> dict[int, tuple[int, ...]]:
    """vCPUs by node of two."""
    nodes = sorted({*some, *more})
    return {at: tuple(sorted((*some.get(at, ()), *more.get(at, ())))) for at in nodes}


def _plugged(
    way: Strategy, current: Placement, vcpus_by_node: Mapping[int, Sequence[int]], new: list[int]
) -> dict[int, list[int]]:
    """Where vCPUs go that have come since: to the others or the memory of their vNUMA cell, else to
    the node where most are."""
    fullest = max(vcpus_by_node, key=lambda index: (len(vcpus_by_node[index]), -index))
    at_node = {vcpu: at for at, vcpus in vcpus_by_node.items() for vcpu in vcpus}
    homes = current.memory.cells if current.memory else {}
    of_memory = {node.memory_node: at for at, node in enumerate(way.capacity.grid.nodes)}
    found: dict[int, list[int]] = {}
    for vcpu in new:
        cell = next((one for one in way.wanted.cells if vcpu in one.vcpus), None)
        beside = [at_node[other] for other in cell.vcpus if other in at_node] if cell else []
        home = of_memory.get(homes.get(cell.cell, -1), fullest) if cell else fullest
        found.setdefault(beside[0] if beside else home, []).append(vcpu)
    return found


def _node_index(capacity: HostCapacity, text: str) -> int | None:
    """The node of a set's first CPU that is online."""
    numbers = map(int, re.findall(r"\d{1,6}", text))
    return next(
        (capacity.grid.where[cpu][0] for cpu in numbers if cpu in capacity.grid.where), None
    )


def _memory(
    way: Strategy, current: Placement, node_indices: Collection[int]
) -> tuple[tuple[int, ...], dict[int, int]]:
    """Nodes of its memory where they are more than its vCPUs' and its cells'; and where cells
    without vCPUs have theirs."""
    if current.memory is None:
        return (), {}
    nodes = way.capacity.host.by_id.keys()
    homes = {
        cell.cell: current.memory.cells[cell.cell]
        for cell in way.wanted.cells
        if not cell.vcpus and current.memory.cells.get(cell.cell) in nodes
    }
    of_vcpus = {way.capacity.grid.nodes[node_index].memory_node for node_index in node_indices}
    try:
        known = cpuset.parse(current.memory.nodeset) & nodes
    except ValueError:
        return (), homes
    return (tuple(sorted(known)), {}) if known > {*of_vcpus, *homes.values()} else ((), homes)


def _keep_dedicated(way: Dedicated, current: Placement) -> Assignment | None:
    capacity, wanted = way.capacity, way.wanted
    cpus = {}
    for vcpu in wanted.whole.vcpus:
        text = current.vcpus.get(vcpu)
        if text is not None:
            if not text.isdecimal() or int(text) not in capacity.grid.where:
                return None
            cpus[vcpu] = int(text)
    masks = _masks(way, cpus)
    vcpus_by_node: dict[int, tuple[int, ...]] = {}
    for vcpu, cpu in sorted(cpus.items()):
        node_index = capacity.grid.where[cpu][0]
        vcpus_by_node[node_index] = (*vcpus_by_node.get(node_index, ()), vcpu)
    if masks is None or not vcpus_by_node or not vcpus_by_node.keys() <= _possible(way):
        return None
    new = [vcpu for vcpu in wanted.whole.vcpus if vcpu not in cpus]
    vcpus_by_node = dict(sorted(vcpus_by_node.items()))
    if new and len(vcpus_by_node) > 1 and not wanted.cells:
        return None
    plugged = _plugged(way, current, vcpus_by_node, new)
    memory_nodes, homes = _memory(way, current, {*vcpus_by_node, *plugged})
    assignment = Assignment(
        wanted, way.kind, current.why, vcpus_by_node, cpus, masks, memory_nodes, homes
    )
    assignment.shares = capacity.shares(
        wanted, _together(vcpus_by_node, plugged), memory_nodes, homes
    )
    reserve(capacity, assignment)
    for node_index, vcpus in plugged.items():
        if not _extend(capacity, assignment, node_index, vcpus):
            release(capacity, assignment)
            return None
    return assignment


def _masks(way: Dedicated, cpus: Mapping[int, int]) -> dict[int, int] | None:
    """CPUs taken by node index, with those that smt= keeps idle; None where some are not free."""
    capacity, smt = way.capacity, way.wanted.policy.smt
    masks: dict[int, int] = {}
    for cpu in cpus.values():
        node_index, bit = capacity.grid.where[cpu]
        if masks.get(node_index, 0) >> bit & 1:
            return None
        masks[node_index] = masks.get(node_index, 0) | 1 << bit
    for node_index, mask in masks.items():
        node = capacity.nodes[node_index]
        cores = _cores(node.grid.core_of, mask)
        if smt is Smt.ISOLATE and any(count(core & mask) > 1 for core in cores):
            return None
        if smt is Smt.REQUIRE and any(count(core) == 1 for core in cores):
            return None
        if smt is not Smt.PREFER:
            mask = masks[node_index] = sum(cores)  # noqa: PLW2901 - the mask with its cores filled up
        costs = node.costs_shared and way.capacity is way.capacity.base
        lacks = costs and count(mask) > node.spare(way.wanted.crowds)
        if mask & ~node.free or lacks:
            return None
    return masks


def _cores(core_of: tuple[int, ...], mask: int) -> set[int]:
    return {core for bit, core in enumerate(core_of) if mask >> bit & 1}


def _extend(
    capacity: HostCapacity, assignment: Assignment, node_index: int, new: list[int]
) -> bool:
    """Give CPUs of a node to further vCPUs; False where it has none: nothing has changed then."""
    capacity = capacity.within(assignment.wanted.guest)
    whole = assignment.wanted.whole  # its memory has been counted
    way = Dedicated(capacity, replace(assignment.wanted, whole=replace(whole, memory=0, huge={})))
    own = assignment.masks.get(node_index, 0)
    beside = _beside(capacity, assignment, node_index, new)
    mask = sum(1 << bit for bit in beside.values())
    rest = tuple(vcpu for vcpu in new if vcpu not in beside)
    if way.free_vcpus(node_index) < len(rest) + count(mask & ~own):
        return False
    capacity.base.nodes[node_index].take(mask)
    way.capacity = capacity.within(assignment.wanted.guest)
    more = way.assign(NodeChoice({node_index: rest}, assignment.why))
    cpus = capacity.grid.nodes[node_index].cpus
    plugged = {vcpu: cpus[bit] for vcpu, bit in beside.items()}
    assignment.cpus = {**assignment.cpus, **plugged, **more.cpus}
    assignment.masks = {**assignment.masks, node_index: own | mask | more.masks[node_index]}
    assignment.vcpus_by_node = _together(assignment.vcpus_by_node, {node_index: new})
    return True


def _beside(
    capacity: HostCapacity, assignment: Assignment, node_index: int, new: list[int]
) -> dict[int, int]:
    """Plugged vCPU → bit of a CPU on the host core where the others of its guest core are."""
    threads, smt = assignment.wanted.guest.threads, assignment.wanted.policy.smt
    if threads == 1 or smt is Smt.ISOLATE:
        return {}
    node, own = capacity.nodes[node_index], assignment.masks.get(node_index, 0)
    where = {vcpu: capacity.grid.where[cpu] for vcpu, cpu in assignment.cpus.items()}
    seated = {vcpu: bit for vcpu, (at, bit) in where.items() if at == node_index}
    found = {}
    for vcpu in new:
        bit = sibling(node, vcpu, threads, seated, own)
        if bit is not None:
            seated[vcpu] = found[vcpu] = bit
    return found
