# SPDX-License-Identifier: GPL-2.0-or-later
"""What owners have taken of a host: counted, never moved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement.model import MemoryPlacement, Placement, PlacementKind

ANYWHERE = frozenset[int]()


def reason(guest: Guest, host: Host) -> str:
    """Why a guest is its owner's to place; "" where it is ours."""
    owned = guest.owned
    if guest.manager:
        return f"{guest.manager} manages it: observed only"
    if any(_says_something(cpus, host) for cpus in owned.vcpus.values()):
        return "its owner pinned its vCPUs"
    if owned.automatic:
        return "placement='auto': numad places it when it starts"
    if owned.realtime:
        return "its owner has set real-time scheduling for its threads"
    return ""


def _says_something(cpus: frozenset[int], host: Host) -> bool:
    """Whether a set of CPUs leaves out one that is online."""
    return bool(cpus) and not host.cpus.keys() <= cpus


@dataclass
class ClaimedCpus:
    """By node index: CPUs pinned by one vCPU alone, CPUs where others' threads may run, and how
    many CPUs those need."""

    taken: list[int]
    avoided: list[int]
    load: list[float]


def claims(host: Host, guests: Iterable[Guest], vcpus_per_cpu: float = 1) -> ClaimedCpus:
    """What all guests' own pins take; a set that holds every CPU takes nothing.

    vCPUs that an owner or a manager left unpinned need CPUs as others do that float.
    """
    nodes = len(host.grid.nodes)
    found = ClaimedCpus([0] * nodes, [0] * nodes, [0.0] * nodes)
    for guest in guests:
        owned = guest.owned
        for vcpu in guest.online:
            _claim(found, host, owned.vcpus.get(vcpu, ANYWHERE), 1)
        for cpus in (owned.emulator or ANYWHERE, *owned.iothreads.values()):
            _claim(found, host, cpus, 0)
        vcpus = unpinned(guest, host)
        if vcpus:
            _float(found, host, guest, vcpus / vcpus_per_cpu)
    return found


def unpinned(guest: Guest, host: Host) -> int:
    """How many vCPUs may run anywhere of a guest that is not ours to place.

    numad pins those of placement='auto' when the guest starts.
    """
    if not (guest.manager or guest.owned.realtime or guest.owned.vcpus):
        return 0
    sets = (guest.owned.vcpus.get(vcpu, ANYWHERE) & host.cpus.keys() for vcpu in guest.online)
    pinned = sum(0 < len(cpus) < len(host.cpus) for cpus in sets)
    if guest.manager or guest.owned.realtime or pinned:
        return len(guest.online) - pinned
    return 0


def _claim(found: ClaimedCpus, host: Host, cpus: frozenset[int], vcpus: int) -> None:
    online = [host.grid.where[cpu] for cpu in cpus if cpu in host.grid.where]
    if not online or not _says_something(cpus, host):
        return
    for node_index, bit in online:
        if vcpus and len(online) == 1:
            found.taken[node_index] |= 1 << bit
        else:
            found.avoided[node_index] |= 1 << bit
            found.load[node_index] += vcpus / len(online)


def _float(found: ClaimedCpus, host: Host, guest: Guest, vcpus: float) -> None:
    """vCPUs that may run anywhere, over the CPUs that the scheduler balances: where the guest's
    memory is, or its owner has put it, if that says something."""
    wished = guest.resident.keys() or guest.owned.nodes
    sizes = [bin(node.everything & ~node.isolated).count("1") for node in host.grid.nodes]
    near = [size if node.memory_node in wished else 0 for node, size in zip(host.grid.nodes, sizes)]
    weights = near if any(near) else sizes
    for node_index, weight in enumerate(weights):
        if weight:
            found.load[node_index] += vcpus * weight / sum(weights)


def placement(guest: Guest, host: Host, why: str) -> Placement:
    """An owner's guest as it is."""
    owned = guest.owned
    cpus = frozenset[int]().union(*owned.vcpus.values())
    nodes = {host.cpus[cpu].node for cpu in cpus if cpu in host.cpus}
    return Placement(
        guest=guest.name,
        uuid=guest.uuid,
        kind=PlacementKind.OWNER,
        nodes=tuple(sorted(nodes or owned.nodes)),
        vcpus={
            vcpu: cpuset.text(owned.vcpus[vcpu]) for vcpu in guest.online if vcpu in owned.vcpus
        },
        emulator=cpuset.text(owned.emulator or ()),
        iothreads={number: cpuset.text(cpus) for number, cpus in owned.iothreads.items()},
        memory=MemoryPlacement(owned.memory, cpuset.text(owned.nodes)) if owned.nodes else None,
        why=why,
    )


def conflicts(host: Host, guests: Iterable[Guest]) -> Iterable[str]:
    """CPUs that several owners pinned a vCPU to alone."""
    pinned: dict[int, list[str]] = {}
    for guest in guests:
        for vcpu in guest.online:
            cpus = guest.owned.vcpus.get(vcpu, frozenset())
            if len(cpus) == 1 and _says_something(cpus, host):
                pinned.setdefault(min(cpus), []).append(guest.name)
    for cpu, names in sorted(pinned.items()):
        if len(names) > 1:
            yield f"CPU {cpu} is pinned by {len(names)} vCPUs: {', '.join(sorted(set(names)))}"
