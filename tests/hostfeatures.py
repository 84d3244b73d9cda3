# SPDX-License-Identifier: GPL-2.0-or-later
"""What is special about a host, by name: what generated hosts must have as real ones do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tuned_virt.model.topology import Host


def _online(host: Host) -> list[frozenset[int]]:
    """The CPUs of each node."""
    return [node.cpus & host.cpus.keys() for node in host.nodes]


def _threads(host: Host) -> set[int]:
    return {len(cpu.siblings) for cpu in host.cpus.values()}


def _distances(host: Host) -> list[tuple[int, int]]:
    """There and back, of each pair of nodes."""
    known = [node for node in host.nodes if node.distances]
    return [
        (one.distances.get(other.id, 0), other.distances.get(one.id, 0))
        for one in known
        for other in known
        if one.id < other.id
    ]


def _span(host: Host, cpus: frozenset[int], part: Callable[[int], int]) -> bool:
    return len({part(cpu) for cpu in cpus if cpu in host.cpus}) > 1


def _apart(cpus: frozenset[int]) -> bool:
    """Whether others have numbers between theirs."""
    return len(cpus) > 1 and max(cpus) - min(cpus) >= len(cpus)


def _llcs_of_a_node(host: Host) -> int:
    return max(sum(bool(cache.cpus & cpus) for cache in host.caches) for cpus in _online(host))


def _sockets(host: Host) -> dict[int, frozenset[int]]:
    found: dict[int, frozenset[int]] = {}
    for cpu in host.cpus.values():
        found[cpu.socket] = found.get(cpu.socket, frozenset()) | {cpu.id}
    return found


FEATURES: Mapping[str, Callable[[Host], bool]] = {
    "one CPU": lambda host: len(host.cpus) == 1,
    "over 64 CPUs": lambda host: len(host.cpus) > 64,
    "several NUMA nodes": lambda host: len(host.nodes) > 1,
    "8 NUMA nodes or more": lambda host: len(host.nodes) >= 8,
    "gaps in node numbers": lambda host: [n.id for n in host.nodes] != list(range(len(host.nodes))),
    "nodes of memory alone": lambda host: any(n.memory and not n.cpus for n in host.nodes),
    "nodes of CPUs alone": lambda host: any(n.cpus and not n.memory for n in host.nodes),
    "nodes of nothing": lambda host: any(not n.cpus and not n.memory for n in host.nodes),
    "no memory known": lambda host: not any(n.memory for n in host.nodes),
    "uneven memory": lambda host: len({n.memory for n in host.nodes if n.memory}) > 1,
    "uneven CPUs": lambda host: len(set(map(len, _online(host))) - {0}) > 1,
    "no distances": lambda host: len(host.nodes) > 1 and not any(n.distances for n in host.nodes),
    "distances of several kinds": lambda host: len({there for there, _ in _distances(host)}) > 1,
    "distances that differ back": lambda host: any(
        there != back for there, back in _distances(host)
    ),
    "no SMT": lambda host: _threads(host) == {1},
    "2 threads a core": lambda host: 2 in _threads(host),
    "4 threads a core or more": lambda host: max(_threads(host)) >= 4,
    "cores of differing threads": lambda host: len(_threads(host)) > 1,
    "fast and slow cores": lambda host: len({cpu.capacity for cpu in host.cpus.values()}) > 1,
    "siblings apart in number": lambda host: any(_apart(c.siblings) for c in host.cpus.values()),
    "CPUs of a node apart in number": lambda host: any(map(_apart, _online(host))),
    "gaps in CPU numbers": lambda host: _apart(frozenset(host.cpus) | host.offline),
    "offline CPUs": lambda host: bool(host.offline),
    "offline first CPU": lambda host: 0 in host.offline,
    "several packages": lambda host: len(_sockets(host)) > 1,
    "packages of several nodes": lambda host: any(
        _span(host, cpus, lambda cpu: host.cpus[cpu].node) for cpus in _sockets(host).values()
    ),
    "nodes of several packages": lambda host: any(
        _span(host, cpus, lambda cpu: host.cpus[cpu].socket) for cpus in _online(host)
    ),
    "packages of several dies": lambda host: any(
        _span(host, cpus, lambda cpu: host.cpus[cpu].die) for cpus in _sockets(host).values()
    ),
    "no caches": lambda host: not host.caches,
    "a cache for each core": lambda host: any(
        cache.cpus <= host.cpus[min(cache.cpus)].siblings for cache in host.caches
    ),
    "several caches a node": lambda host: _llcs_of_a_node(host) > 1,
    "caches of several nodes": lambda host: any(
        _span(host, cache.cpus, lambda cpu: host.cpus[cpu].node) for cache in host.caches
    ),
    "CPUs without the cache of others": lambda host: (
        bool(host.caches)
        and bool(host.cpus.keys() - frozenset().union(*(cache.cpus for cache in host.caches)))
    ),
    "isolated CPUs": lambda host: bool(host.isolated),
    "only isolated CPUs": lambda host: host.cpus.keys() <= host.isolated | host.nohz_full,
    "CPUs without tick": lambda host: bool(host.nohz_full),
    "devices of a node": lambda host: bool(host.devices),
    "disks of a node": lambda host: bool(host.disks),
    "pools of huge pages": lambda host: any(any(node.pages.values()) for node in host.nodes),
}


def features(host: Host) -> set[str]:
    """The names of what is so."""
    return {name for name, is_so in FEATURES.items() if is_so(host)}
