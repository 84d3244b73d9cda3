# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's CPUs as bits: per NUMA node its clusters (an LLC's cores of one kind), and their cores.

Bits are numbered inside a node, neighbours in cache and core next to each other, so that masks of
a node fit a machine word however the firmware numbers CPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from tuned_virt.frozen_dataclasses import dataclass

if TYPE_CHECKING:
    from tuned_virt.model.topology.host import CpuDetail, Host

EFFICIENT = 512
"""Capacity given to the efficient cores of x86: the kernel says none, only that they are slower."""


ALIKE = 0.8
"""The part of a kind's fastest core that its slowest one has at least."""


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind that share a last-level cache, as masks.

    threads   most of a core
    capacity  of its cores where the host's differ: 1024 for the fastest, see `CpuDetail`
    cache     KiB of the last-level cache that they share; 0 where none is told
    """

    mask: int
    cores: tuple[int, ...]
    threads: int
    capacity: int = 1024
    cache: int = 0


@dataclass(frozen=True)
class GridNode:
    """A node with CPUs that are online.

    cpus         bit → CPU number
    everything   mask of all its CPUs; isolated: of those isolated or without tick
    core_of      bit → mask of its core
    memory_node  the node that its memory comes from: itself, or the nearest that has some
    """

    id: int
    cpus: tuple[int, ...]
    everything: int
    isolated: int
    clusters: tuple[Cluster, ...]
    core_of: tuple[int, ...]
    memory_node: int

    def numbers(self, mask: int) -> list[int]:
        """The CPU numbers of a mask."""
        return [cpu for bit, cpu in enumerate(self.cpus) if mask >> bit & 1]


@dataclass(frozen=True)
class Grid:
    """All nodes with CPUs; where: CPU number → (place in nodes, bit); distances by place."""

    nodes: tuple[GridNode, ...]
    where: Mapping[int, tuple[int, int]]
    distances: tuple[tuple[int, ...], ...]
    node_index: Mapping[int, int]


def build(host: Host) -> Grid:
    """The grid of a host."""
    isolated = host.isolated | host.nohz_full
    if host.cpus.keys() <= isolated:
        isolated = frozenset()
    nodes: list[GridNode] = []
    where: dict[int, tuple[int, int]] = {}
    for node in host.nodes:
        details = [host.cpus[cpu] for cpu in sorted(node.cpus) if cpu in host.cpus]
        if details:
            capacities = _capacities(host, details)
            groups = _clusters(host, details, capacities)
            order = [cpu for group in groups for core in group for cpu in core]
            where.update({cpu: (len(nodes), bit) for bit, cpu in enumerate(order)})
            nodes.append(_node(host, node.id, capacities, groups, isolated))
    ids = [node.id for node in nodes]
    table = tuple(tuple(host.distance(one, other) for other in ids) for one in ids)
    return Grid(tuple(nodes), where, table, {id_: place for place, id_ in enumerate(ids)})


def _node(
    host: Host,
    number: int,
    capacities: Mapping[int, int],
    groups: list[list[list[int]]],
    isolated: frozenset[int],
) -> GridNode:
    order = [cpu for group in groups for core in group for cpu in core]
    bit = {cpu: 1 << place for place, cpu in enumerate(order)}
    cache_of = _useful_caches(host)
    clusters = []
    core_of: list[int] = []
    for group in groups:
        cores = tuple(sum(bit[cpu] for cpu in core) for core in group)
        capacity = capacities[group[0][0]]
        place = cache_of.get(group[0][0])
        cache = 0 if place is None else host.caches[place].size
        clusters.append(Cluster(sum(cores), cores, max(map(len, group)), capacity, cache))
        core_of += [mask for mask, core in zip(cores, group) for _ in core]
    return GridNode(
        id=number,
        cpus=tuple(order),
        everything=(1 << len(order)) - 1,
        isolated=sum(bit[cpu] for cpu in order if cpu in isolated),
        clusters=tuple(clusters),
        core_of=tuple(core_of),
        memory_node=_memory_node(host, number),
    )


def _capacities(host: Host, details: list[CpuDetail]) -> dict[int, int]:
    """By CPU; where none is told, cores without SMT are the efficient ones beside cores with it."""
    kinds = _kinds({cpu.capacity for cpu in host.cpus.values()})
    told = {cpu.id: kinds[cpu.capacity] for cpu in details}
    if len(set(told.values())) > 1 or not _smt_kinds(host, details):
        return told
    return {
        cpu.id: told[cpu.id] if len(cpu.siblings) > 1 else min(EFFICIENT, told[cpu.id])
        for cpu in details
    }


def _kinds(capacities: Iterable[int]) -> dict[int, int]:
    """Capacity → that of the fastest core of its kind: cores of one kind differ a little, as some
    reach a higher clock (NVIDIA's GB10: 1024, 1017 and 997 beside 731 and 718)."""
    kinds: dict[int, int] = {}
    fastest = 0
    for capacity in sorted(capacities, reverse=True):
        fastest = fastest if capacity >= ALIKE * fastest > 0 else capacity
        kinds[capacity] = fastest
    return kinds


def _clusters(
    host: Host, details: list[CpuDetail], capacities: Mapping[int, int]
) -> list[list[list[int]]]:
    """A node's clusters, the fastest first, each a list of cores, each a list of CPUs."""
    cache_of = _useful_caches(host)
    smt_kinds = _smt_kinds(host, details)

    def kind(cpu: CpuDetail) -> tuple[int, ...]:
        threads = min(len(cpu.siblings), 2) if smt_kinds else 0
        cache = cache_of.get(cpu.id)
        return (
            -capacities[cpu.id],
            -threads,
            *((0, cache, 0) if cache is not None else (1, cpu.socket, cpu.die)),
        )

    ordered = sorted(details, key=lambda cpu: (kind(cpu), min(cpu.siblings), cpu.id))
    return [
        [[cpu.id for cpu in core] for _, core in groupby(group, lambda cpu: min(cpu.siblings))]
        for _, group in groupby(ordered, kind)
    ]


def _useful_caches(host: Host) -> dict[int, int]:
    """CPU → place of its cache, for caches that several cores share."""
    return {
        cpu: place
        for place, cache in enumerate(host.caches)
        if len({min(host.cpus[cpu].siblings) for cpu in cache.cpus if cpu in host.cpus}) > 1
        for cpu in cache.cpus
    }


def _smt_kinds(host: Host, details: Iterable[CpuDetail]) -> bool:
    """Whether cores with and without SMT are two kinds, not cores whose siblings are offline."""
    single = sum(len(cpu.siblings) == 1 for cpu in details)
    double = sum(len(cpu.siblings) > 1 for cpu in details)
    return not host.offline and single > 1 and double > 2


def _memory_node(host: Host, number: int) -> int:
    """The nearest node with memory; the node itself where none is known to have any."""
    with_memory = [node.id for node in host.nodes if node.memory > 0]
    if number in with_memory or not with_memory:
        return number
    with_cpus = {node.id for node in host.nodes if node.cpus}
    return min(
        with_memory, key=lambda other: (host.distance(number, other), other not in with_cpus, other)
    )
