# SPDX-License-Identifier: GPL-2.0-or-later
"""Which nodes a guest should start on, by the rule by which vm_pinning places floating guests.

Pure, and without the planner: that takes longer to import than libvirt's start of a guest may wait.
One node that has room for all of it, where the vCPUs of all guests are then most level (as
`placement/balanced.py`); else the fewest and nearest nodes that have it together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple


class Node(NamedTuple):
    """A NUMA node that guests can run on.

    cpus       the CPUs that guests may use
    available  MiB that are free, or that the kernel frees without swapping
    vcpus      vCPUs of guests that are there already
    distances  node → distance, as in sysfs
    """

    id: int
    cpus: frozenset[int]
    available: int
    vcpus: float = 0.0
    distances: Mapping[int, int] = {}


class Advised(NamedTuple):
    """An advice that a guest may not have followed yet.

    nodes      where it was advised to start
    vcpus      how many it has
    mib        how much memory it may use
    available  node → MiB that were available when it was given
    placed     node → vCPUs that were there then, of guests that vm_pinning had placed
    time       seconds since boot
    """

    nodes: tuple[int, ...]
    vcpus: int
    mib: int
    available: Mapping[int, int]
    placed: Mapping[int, float]
    time: float


LASTS = 300.0
"""Seconds in which an advised guest may not have touched its memory yet. QEMU allocates on demand,
and what a guest has not touched after booting it may not touch for days."""


def counted(nodes: Iterable[Node], lately: Sequence[Advised]) -> list[Node]:
    """The nodes with the advice of the last minutes counted as taken, but for what shows there
    already: memory that has become less since, and vCPUs that have been placed."""
    return [_counted(node, [one for one in lately if node.id in one.nodes]) for node in nodes]


def _counted(node: Node, here: list[Advised]) -> Node:
    if not here:
        return node
    mib = sum(one.mib / len(one.nodes) for one in here)
    touched = max(one.available.get(node.id, 0) for one in here) - node.available
    vcpus = sum(one.vcpus / len(one.nodes) for one in here)
    placed = node.vcpus - min(one.placed.get(node.id, 0.0) for one in here)
    return node._replace(
        available=int(node.available - max(0.0, mib - max(0, touched))),
        vcpus=node.vcpus + max(0.0, vcpus - max(0.0, placed)),
    )


def advise(nodes: Sequence[Node], vcpus: int, mib: int) -> list[int]:
    """Nodes for a guest, in order; all of them where even those lack its memory.

    Raises ValueError without any node.
    """
    if not nodes:
        raise ValueError("this machine has no node with CPUs and memory")
    whole = [node for node in nodes if node.available >= mib and len(node.cpus) >= vcpus]
    if whole:
        return [min(whole, key=lambda node: _after(node, vcpus)).id]
    sets = [found for seed in nodes if (found := _grown(seed, nodes, vcpus, mib))]
    if not sets:
        return sorted(node.id for node in nodes)
    best = min(sets, key=lambda some: (len(some), _apart(some), _level(some, vcpus)))
    return sorted(node.id for node in best)


def _after(node: Node, vcpus: int) -> tuple[float, int, int]:
    """How full a node is with a guest; of equal ones that with most memory, then the first."""
    return (node.vcpus + vcpus) / len(node.cpus), -node.available, node.id


def _grown(seed: Node, nodes: Sequence[Node], vcpus: int, mib: int) -> list[Node]:
    """The seed and the nodes nearest to it that have room for a guest; none where all do not."""
    near = sorted(nodes, key=lambda node: (_distance(seed, node), _after(node, vcpus)))
    for size, (cpus, available) in enumerate(_sums(near), 1):
        if cpus >= vcpus and available >= mib:
            return near[:size]
    fits = sum(node.available for node in nodes) >= mib
    return list(near) if fits else []


def _sums(nodes: Sequence[Node]) -> Iterator[tuple[int, int]]:
    room = [max(0, node.available) for node in nodes]
    return zip(accumulate(len(node.cpus) for node in nodes), accumulate(room))


def _distance(one: Node, other: Node) -> int:
    return 0 if one.id == other.id else one.distances.get(other.id, 20)


def _apart(nodes: Sequence[Node]) -> int:
    return sum(_distance(one, other) for one in nodes for other in nodes)


def _level(nodes: Sequence[Node], vcpus: int) -> tuple[float, int]:
    load = sum(node.vcpus for node in nodes) + vcpus
    return load / sum(len(node.cpus) for node in nodes), min(node.id for node in nodes)
