# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory nodes against CPU nodes, strict memory, vNUMA, devices of other nodes: chapters 5.4, 9."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.audit.pinning import TO_NODE, to_cpus
from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule
from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.kernel import cpuset
from tuned_virt.model.host_facts import NotKnown
from tuned_virt.model.topology import Host

NUMATUNE = "https://libvirt.org/formatdomain.html#numa-node-tuning"
NO_DEVICES = "on which nodes devices are is not known: capabilities do not say it"
POLICY = "https://docs.kernel.org/admin-guide/mm/numa_memory_policy.html"


def _with_cpus(host: Host) -> frozenset[int]:
    return frozenset(node.id for node in host.nodes if node.cpus)


@guest_rule(
    "numa-memory-elsewhere",
    Severity.WARNING,
    checks="memory nodes other than those of the CPUs that the guest is pinned to",
    advice="the same nodes for memory and vCPUs",
    why="each access to memory of another node is slower, by a tenth and more",
    guide="9.3.1",
    page=NUMATUNE,
    mends="virsh numatune {guest} --mode {mode} --nodeset {nodes} --config",
)
def memory_elsewhere(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Nodes that have memory alone (CXL, HBM) are a choice."""
    pins = one.pins
    if not pins.vcpus:
        return
    known = scene.topology.by_id
    for vcpus, memory, what in _bound(one):
        cpus = scene.nodes_of(frozenset().union(*(pins.vcpus.get(vcpu, ()) for vcpu in vcpus)))
        if cpus and memory <= known.keys() and memory & _with_cpus(scene.topology) != cpus:
            told = f"{what} is on node {cpuset.text(memory)}, its vCPUs on {cpuset.text(cpus)}"
            values = {"mode": pins.memory, "nodes": cpuset.text(cpus)}
            yield Found(told, None if pins.memnodes else values)


def _bound(one: AuditedGuest) -> Iterator[tuple[frozenset[int], frozenset[int], str]]:
    """vCPUs, the nodes of their memory, and what that is: by cells where these say it."""
    pins = one.pins
    for cell in one.guest.cells:
        if cell.id in pins.memnodes:
            yield cell.vcpus, pins.memnodes[cell.id], f"the memory of cell {cell.id}"
    if pins.nodes and not pins.memnodes:
        yield frozenset(range(one.guest.vcpus)), pins.nodes, "its memory"


@guest_rule(
    "numa-memory-unbound",
    Severity.WARNING,
    checks="a guest whose vCPUs are pinned to some nodes, and whose memory is not",
    advice="<numatune> with the node of the pinned CPUs, mode preferred",
    why="memory is allocated where there is room, and stays there while the vCPUs cannot follow",
    guide="9.3.1",
    page=NUMATUNE,
    mends="virsh numatune {guest} --mode preferred --nodeset {nodes} --config",
)
def memory_unbound(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Where the pins leave out a node."""
    pins = one.pins
    if not pins.vcpus or pins.memory or pins.nodes or pins.memnodes or pins.automatic:
        return
    nodes = scene.nodes_of(one.allowed)
    if nodes and nodes < _with_cpus(scene.topology) and not one.placed:
        single = {"nodes": cpuset.text(nodes)} if len(nodes) == 1 else None
        yield Found(f"its vCPUs are on node {cpuset.text(nodes)}, its memory on any", single)


@guest_rule(
    "numa-strict-without-swap",
    Severity.WARNING,
    checks="strict memory on a host without swap",
    advice="mode preferred with one node, or swap on the host",
    why="when the nodes are full the kernel kills the guest: it has nowhere else to put its pages",
    guide="9.2",
    page=POLICY,
    mends="virsh numatune {guest} --mode preferred --nodeset {nodes} --config",
)
def strict_without_swap(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Huge pages are allocated at the start, and are never swapped."""
    if one.pins.memory != "strict" or one.guest.huge_pages:
        return
    nodes = one.pins.nodes
    if scene.facts.swap.get() == 0:
        values = {"nodes": cpuset.text(nodes)} if len(nodes) == 1 else None
        yield Found(f"strict on node {cpuset.text(nodes) or 'auto'}, and no swap", values)


@guest_rule(
    "numa-strict-overcommitted",
    Severity.ERROR,
    checks="guests that are strictly bound to nodes and need more memory than these have",
    advice="other nodes for some of these guests, or mode preferred",
    why="the kernel swaps, then kills a guest, while other nodes have memory",
    guide="9.2",
    page=POLICY,
    mends="virsh numatune {guest} --mode preferred --nodeset {nodes} --config",
)
def strict_overcommitted(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """All running guests whose memory must be inside this one's nodes."""
    nodes = one.pins.nodes
    if one.pins.memory != "strict" or not nodes:
        return
    host = scene.topology
    bound = [
        guest
        for guest in scene.running
        if guest.pins.memory == "strict" and guest.pins.nodes and guest.pins.nodes <= nodes
    ]
    need = sum(guest.guest.memory for guest in bound)
    have = sum(host.by_id[node].memory for node in nodes if node in host.by_id)
    if have and need > have:
        values = {"nodes": cpuset.text(nodes)} if len(nodes) == 1 else None
        told = f"{len(bound)} guests need {need >> 10} MiB of node {cpuset.text(nodes)}"
        yield Found(f"{told}, which has {have >> 10}", values)


@guest_rule(
    "numa-absent-nodes",
    Severity.ERROR,
    checks="memory that is bound to nodes which the host does not have",
    advice="only nodes that there are",
    why="libvirt refuses to start it",
    guide="9.3.2",
    page=NUMATUNE,
    mends="virt-xml {guest} --edit --xml xpath.delete=./numatune",
)
def absent_nodes(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Of the guest, and of its cells."""
    named = one.pins.nodes.union(*one.pins.memnodes.values())
    if named and (gone := named - frozenset(scene.topology.by_id)):
        yield Found(f"its memory is bound to node {cpuset.text(gone)}, which is not here")


@guest_rule(
    "numa-over-node",
    Severity.WARNING,
    checks="a guest that is larger than any node and has no vNUMA cells",
    advice="one vNUMA cell per node that it needs",
    why="the guest takes all memory for local, so it cannot keep its processes near theirs",
    guide="9.3",
    page="https://libvirt.org/formatdomain.html#guest-numa-topology",
    mends="virt-xml {guest} --edit --cpu {cells}",
)
def over_node(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By memory or by CPUs; one that is larger than the host is told otherwise."""
    if one.guest.cells:
        return
    host, vcpus = scene.topology, one.guest.vcpus
    cpus = max(len(node.cpus & host.cpus.keys()) for node in host.nodes)
    memory = max(node.memory for node in host.nodes)
    whole = sum(node.memory for node in host.nodes)
    by_memory = memory and memory < one.guest.memory <= whole
    by_cpus = cpus < len(one.guest.online) <= len(host.cpus)
    if scene.several_nodes and (by_memory or by_cpus):
        count = max(-(-one.guest.memory // memory) if memory else 1, -(-vcpus // cpus))
        told = f"{vcpus} vCPUs and {one.guest.memory >> 10} MiB; a node has {cpus} CPUs"
        yield Found(f"{told} and {memory >> 10} MiB", {"cells": _cells(one, count)})


def _cells(one: AuditedGuest, count: int) -> str:
    """So many cells of one size, as virt-xml takes them; memory in KiB."""
    vcpus, parts = one.guest.vcpus, []
    for cell in range(count):
        first, end = vcpus * cell // count, vcpus * (cell + 1) // count
        memory = (one.guest.memory // count) & ~1023
        cpus = cpuset.text(range(first, end))
        parts.append(f"numa.cell{cell}.cpus={cpus},numa.cell{cell}.memory={memory}")
    return ",".join(parts)


@guest_rule(
    "numa-device-elsewhere",
    Severity.WARNING,
    checks="a device of the host on another node than the guest that it is given to",
    advice="the guest on the device's node, or a device of the guest's node",
    why="every DMA and interrupt crosses the link between the nodes",
    guide="5.4",
    page="https://docs.kernel.org/driver-api/vfio.html",
    mends=TO_NODE,
    profile=ByProfile("vm_policy=node, without pins in the guest's XML", by_itself=True),
)
def device_elsewhere(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """SR-IOV functions and others, where the firmware says their node."""
    for address in one.guest.devices:
        node = scene.topology.devices.get(address)
        nodes = scene.nodes_of(one.allowed)
        if nodes and not scene.topology.devices and scene.several_nodes:
            raise NotKnown(NO_DEVICES)
        if node is not None and nodes and node not in nodes:
            told = f"{address} is on node {node}, the guest on {cpuset.text(nodes)}"
            yield Found(told, to_cpus(one, scene.topology.by_id[node].cpus))
