# SPDX-License-Identifier: GPL-2.0-or-later
"""Which nodes a guest should start on, by the rule by which vm_pinning places floating guests.

Pure, and without the planner: that takes longer to import than libvirt's start of a guest may wait.
One node that has room for all of it, where the vCPUs of all guests are then most level (as
`placement/balanced.py`); else the fewest and nearest nodes that have it together.
"""

# Annotations are no text here: typing compiles those of a NamedTuple, 1 ms for the first of them.

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

KEPT = 0.9
"""The part of its cores that a guest keeps at least, as `balanced.KEPT`."""

SMT_GAIN = 0.3
"""What the second busy thread of a core adds, as `core_yield.SMT_GAIN`."""

TINY = 1e-9

LASTS = 300.0
"""Seconds in which an advised guest may not have touched its memory yet. QEMU allocates on demand,
and what a guest has not touched after booting it may not touch for days."""

STARTS = 10.0
"""Seconds after which libvirt has a file of state of an advised guest, without vCPUs while QEMU
allocates its memory. Where there is none it did not start, or has ended already."""


class Node(NamedTuple):
    """A NUMA node that guests can run on.

    cpus       the CPUs that guests may use
    available  MiB that are free, or that the kernel frees without swapping
    vcpus      vCPUs of guests that run there already and may not run on all nodes
    distances  node → distance, as in sysfs
    cores      cores that have these CPUs; 0: each CPU is one
    pools      MiB of huge pages that are free
    """

    id: int
    cpus: frozenset[int]
    available: int
    vcpus: float = 0.0
    distances: Mapping[int, int] = {}
    cores: int = 0
    pools: int = 0


class Asked(NamedTuple):
    """A guest that is to start: its vCPUs and MiB. floating: vCPUs of others that run and may do so
    on all nodes."""

    vcpus: int
    mib: int
    floating: float = 0.0


class Advice(NamedTuple):
    """Nodes, in order. huge: for its huge pages, as no node has so much ordinary memory."""

    nodes: tuple[int, ...]
    huge: bool = False


class Running(NamedTuple):
    """A guest whose vCPUs run. id: the first one's thread; masks: the CPUs where each may run."""

    id: int
    masks: tuple[int, ...]


class Guests(NamedTuple):
    """Those that libvirt has now. starting: how many have no vCPUs yet."""

    running: Sequence[Running] = ()
    starting: int = 0


class Advised(NamedTuple):
    """An advice that a guest may not have followed yet.

    nodes      where it was advised to start
    vcpus      how many it has
    mib        how much memory it may use
    available  node → MiB that were available when it was given: huge pages, for a guest of such
    time       seconds since boot
    guest      the guest that runs there since, which may not have touched its memory; 0: none yet
    """

    nodes: tuple[int, ...]
    vcpus: int
    mib: int
    available: Mapping[int, int]
    time: float
    huge: bool = False
    guest: int = 0


def noted(advice: Advice, nodes: Iterable[Node], asked: Asked, now: float) -> Advised:
    """An advice given at a moment, on nodes as they were read."""
    there = [node for node in nodes if node.id in advice.nodes]
    available = {node.id: node.pools if advice.huge else node.available for node in there}
    return Advised(advice.nodes, asked.vcpus, asked.mib, available, now, advice.huge)


def followed(
    lately: Iterable[Advised],
    guests: Guests,
    known: Collection[int],
    nodes: Iterable[Node],
    now: float,
) -> list[Advised]:
    """Earlier advice that still counts: given to guests that run, or that may still start.

    Guests that are not known yet have followed it: the first that has as many vCPUs, all of which
    run on the nodes that it was advised. Those that are starting are the last that were advised.
    """
    running, starting = guests
    new = [one for one in running if one.id not in known]
    masks = {node.id: sum(1 << cpu for cpu in node.cpus) for node in nodes}
    found = [one if one.guest else _by(new, one, masks) for one in lately]
    ids = {one.id for one in running}
    waiting = sorted((one.time for one in found if not one.guest), reverse=True)
    since = min(waiting[:starting], default=now)

    def counts(one: Advised) -> bool:
        return now - one.time < STARTS or one.time >= since

    return [one for one in found if one.guest in ids or (not one.guest and counts(one))]


def _by(new: list[Running], one: Advised, masks: Mapping[int, int]) -> Advised:
    """An advice with the guest that has followed it, if there is one; it is new no more."""
    elsewhere = sum(mask for node, mask in masks.items() if node not in one.nodes)
    for guest in new:
        if len(guest.masks) == one.vcpus and not any(mask & elsewhere for mask in guest.masks):
            new.remove(guest)
            return one._replace(guest=guest.id)
    return one


def counted(nodes: Iterable[Node], lately: Sequence[Advised]) -> list[Node]:
    """The nodes with the advice of the last minutes counted as taken, but for what shows there
    already: memory that has become less since, and vCPUs of guests that run."""
    return [_counted(node, [one for one in lately if node.id in one.nodes]) for node in nodes]


def _counted(node: Node, here: list[Advised]) -> Node:
    if not here:
        return node
    vcpus = sum(one.vcpus / len(one.nodes) for one in here if not one.guest)
    return node._replace(
        available=_left(node.id, node.available, [one for one in here if not one.huge]),
        pools=_left(node.id, node.pools, [one for one in here if one.huge]),
        vcpus=node.vcpus + vcpus,
    )


def _left(node: int, available: int, here: list[Advised]) -> int:
    """MiB of a node without what guests that were advised may still touch."""
    if not here:
        return available
    mib = sum(one.mib / len(one.nodes) for one in here)
    touched = max(one.available.get(node, 0) for one in here) - available
    return int(available - max(0.0, mib - max(0, touched)))


def advise(nodes: Sequence[Node], asked: Asked) -> Advice:
    """Nodes for a guest; all of them where even those lack its memory.

    Raises ValueError without any node.
    """
    if not nodes:
        raise ValueError("this machine has no node with CPUs and memory for guests")
    able = [node for node in nodes if _nobody_loses([node], nodes, asked)]
    for huge in (False, True):
        whole = [node for node in able if (node.pools if huge else node.available) >= asked.mib]
        if whole:
            return Advice((min(whole, key=lambda node: _after(node, asked.vcpus)).id,), huge)
    sets = [
        some
        for seed in nodes
        for some in _beginnings(_nearest(seed, nodes, asked.vcpus))
        if sum(max(0, node.available) for node in some) >= asked.mib
        and _nobody_loses(some, nodes, asked)
    ]
    best = min(
        sets, key=lambda some: (len(some), _apart(some), _level(some, asked.vcpus)), default=nodes
    )
    return Advice(tuple(sorted(node.id for node in best)))


def _nobody_loses(some: Sequence[Node], nodes: Sequence[Node], asked: Asked) -> bool:
    """Whether nobody loses over a tenth of his cores there, against floating over all nodes: the
    guest when it alone is busy, and those on the nodes when all are."""
    load = sum(node.vcpus for node in some) + asked.vcpus
    total = sum(node.vcpus for node in nodes) + asked.floating + asked.vcpus
    return all(
        _share(some, here) >= KEPT * _share(nodes, anywhere) - TINY
        for here, anywhere in ((asked.vcpus, asked.vcpus), (load, total))
    )


def _share(nodes: Sequence[Node], threads: float) -> float:
    """Cores for each of so many busy threads."""
    cores, second = _cores(nodes)
    return (min(threads, cores) + SMT_GAIN * min(max(0.0, threads - cores), second)) / threads


def _cores(nodes: Sequence[Node]) -> tuple[int, int]:
    """Their cores, and how many of these have further threads."""
    cores = sum(node.cores or len(node.cpus) for node in nodes)
    return cores, min(cores, sum(len(node.cpus) for node in nodes) - cores)


def _after(node: Node, vcpus: int) -> tuple[float, int, int]:
    """How full a node is with a guest; of equal ones that with most memory, then the first."""
    return _full([node], vcpus), -node.available, node.id


def _full(nodes: Sequence[Node], vcpus: int) -> float:
    cores, second = _cores(nodes)
    return (sum(node.vcpus for node in nodes) + vcpus) / (cores + SMT_GAIN * second)


def _nearest(seed: Node, nodes: Sequence[Node], vcpus: int) -> list[Node]:
    """The seed and the nodes by how near they are to it."""
    return sorted(nodes, key=lambda node: (_distance(seed, node), _after(node, vcpus)))


def _beginnings(nodes: list[Node]) -> Iterator[list[Node]]:
    return (nodes[:size] for size in range(1, len(nodes) + 1))


def _distance(one: Node, other: Node) -> int:
    return 0 if one.id == other.id else one.distances.get(other.id, 20)


def _apart(nodes: Sequence[Node]) -> int:
    return sum(_distance(one, other) for one in nodes for other in nodes)


def _level(nodes: Sequence[Node], vcpus: int) -> tuple[float, int]:
    return _full(nodes, vcpus), min(node.id for node in nodes)
