# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPUs of a node a guest's vCPUs are given: one kind of core, LLCs kept whole, whole cores
first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import groupby
from typing import NamedTuple

from tuned_virt.model.guest import Guest
from tuned_virt.model.topology.grid import Cluster
from tuned_virt.placement.node_capacity import NodeCapacity, count
from tuned_virt.placement.policy import PlacementPolicy, Prefer, Smt


class VcpuShape(NamedTuple):
    """What a guest takes its vCPUs for: so many are threads of a core, so many are on one of its
    sockets, dies, clusters or vNUMA cells (0: it has one); and which LLCs are preferred for it."""

    threads: int = 1
    die: int = 0
    prefer: Prefer = Prefer.NONE

    @staticmethod
    def of(guest: Guest, policy: PlacementPolicy) -> VcpuShape:
        """A guest's."""
        return VcpuShape(guest.threads, guest.die or _cell(guest), policy.prefer)


def _cell(guest: Guest) -> int:
    """vCPUs of each vNUMA cell; 0 where those are not one after another, as many in each."""
    sizes = {len(cell.vcpus) for cell in guest.cells}
    if len(guest.cells) < 2 or len(sizes) > 1:
        return 0
    [size] = sizes
    blocks = [frozenset(range(at * size, at * size + size)) for at in range(len(guest.cells))]
    return size if [cell.vcpus for cell in guest.cells] == blocks else 0


class Fit(NamedTuple):
    """How well a guest would sit on a node's free CPUs, smaller is better.

    slower   vCPUs on cores that are not of the node's fastest kind, of a node that has several
    lean     KiB of cache of the LLC that is preferred least, negative where more is better
    spans    LLCs; torn: guest cores that would be torn apart; over: CPUs left in the last LLC
    """

    slower: int
    lean: int
    spans: int
    torn: int
    over: int


def fit(node: NodeCapacity, vcpus: int, shape: VcpuShape) -> Fit:
    """How well a guest of so many vCPUs would sit: on the fastest kind of core that holds it."""
    clusters, free_in = node.grid.clusters, node.free_in
    usable, slower = _usable(clusters, free_in, vcpus)
    threads, prefer = shape.threads, shape.prefer
    best = None
    for at in usable:
        free = free_in[at]
        if free >= vcpus:
            torn = _torn(node, clusters[at], vcpus) if threads > 1 else 0
            key = (_lean(clusters[at], prefer), torn, free - vcpus)
            best = key if best is None or key < best else best
    if best:
        return Fit(slower, best[0], 1, best[1], best[2])
    spans, rest = 0, vcpus
    for free in sorted((free_in[at] for at in usable), reverse=True):
        spans += 1
        rest -= free
        if rest <= 0:
            break
    return Fit(slower, max(_lean(clusters[at], prefer) for at in usable), spans, 0, -rest)


def _lean(cluster: Cluster, prefer: Prefer) -> int:
    """How little an LLC is preferred."""
    if prefer is Prefer.NONE:
        return 0
    return -cluster.cache if prefer is Prefer.CACHE else cluster.cache


def _usable(
    clusters: Sequence[Cluster], room: Sequence[int], vcpus: int
) -> tuple[Sequence[int], int]:
    """LLCs of the fastest kind of core that holds all vCPUs, or all LLCs where none does; and how
    many vCPUs are on slower cores than the node has."""
    every = range(len(clusters))
    if clusters[0].capacity == clusters[-1].capacity:
        return every, 0
    fastest = 0
    for number, (_, group) in enumerate(groupby(every, lambda at: clusters[at].capacity)):
        some = list(group)
        total = sum(room[at] for at in some)
        if total >= vcpus:
            return some, vcpus if number else 0
        fastest = fastest if number else total
    return every, vcpus - fastest


def _torn(node: NodeCapacity, cluster: Cluster, vcpus: int) -> int:
    """Whole cores that the guest would fill and that the cluster does not have."""
    if cluster.threads == 1:
        return 0
    whole = sum(core & node.free == core for core in cluster.cores)
    return max(0, vcpus // cluster.threads - whole)


def seat(
    node: NodeCapacity, vcpus: Sequence[int], guest: Guest, policy: PlacementPolicy
) -> tuple[dict[int, int], int]:
    """vCPU → bit of its CPU, and the mask of CPUs to be kept idle; there must be room.

    Threads of a guest core that are not plugged in have their places beside the others as far as
    there is room for that: a guest core sits on one host core.
    """
    smt = policy.smt
    slots = _slots(vcpus, guest) if smt is not Smt.ISOLATE else vcpus
    over = len(slots) - max(len(vcpus), node.dedicable(smt))
    if over > 0:
        slots = _without_last(slots, set(slots).difference(vcpus), over)
    bits, idle = allot(node, len(slots), VcpuShape.of(guest, policy), smt)
    seated = dict(zip(slots, bits))
    unplugged = [seated.pop(slot) for slot in set(slots).difference(vcpus)]
    return seated, idle | _mask(unplugged) if smt is Smt.REQUIRE else idle


def _slots(vcpus: Sequence[int], guest: Guest) -> Sequence[int]:
    """The vCPUs, and the further threads of their cores that could be plugged in."""
    threads, number = guest.threads, len(vcpus)
    if threads == 1 or not vcpus:
        return vcpus
    contiguous = vcpus[-1] - vcpus[0] + 1 == number
    if contiguous and not number % threads and not vcpus[0] % threads:
        return vcpus
    elsewhere = set(guest.online).difference(vcpus)
    cores = {vcpu // threads for vcpu in vcpus}
    return [
        slot
        for core in sorted(cores)
        for slot in range(core * threads, min(core * threads + threads, guest.vcpus))
        if slot not in elsewhere
    ]


def _without_last(slots: Sequence[int], unplugged: Set[int], number: int) -> Sequence[int]:
    """Slots without so many of those of threads that are not plugged in, the last ones."""
    left_out = sorted(unplugged)[-number:]
    return [slot for slot in slots if slot not in left_out]


def sibling(
    node: NodeCapacity, vcpu: int, threads: int, seated: Mapping[int, int], mine: int
) -> int | None:
    """The bit of a CPU beside the guest core of which a plugged vCPU is a thread; None for none.

    seated: the guest's vCPUs with their bits; mine: CPUs that are kept for it.
    """
    first = vcpu - vcpu % threads
    free = (node.free | mine) & ~_mask(list(seated.values()))
    for mate in range(first, first + threads):
        if mate in seated and node.grid.core_of[seated[mate]] & free:
            return _bits(node.grid.core_of[seated[mate]] & free)[0]
    return None


def allot(node: NodeCapacity, vcpus: int, shape: VcpuShape, smt: Smt) -> tuple[list[int], int]:
    """CPUs for so many vCPUs, as bits in their order, and the mask of CPUs to be kept idle.

    There must be room (see NodeCapacity.dedicable).
    """
    if smt is Smt.PREFER:
        return _preferring(node, vcpus, shape), 0
    return _whole(node, vcpus, shape, smt)


def _whole(node: NodeCapacity, vcpus: int, shape: VcpuShape, smt: Smt) -> tuple[list[int], int]:
    """Cores of which nobody else gets anything, from as few LLCs as possible."""
    cores = set(node.whole_cores(smt))
    by_cluster = [[core for core in c.cores if core in cores] for c in node.grid.clusters]
    room = [sum(map(count, some)) if smt is Smt.REQUIRE else len(some) for some in by_cluster]
    bits: list[int] = []
    idle = 0
    for at, share in _shares(node, room, [0] * len(room), vcpus, shape):
        upto = len(bits) + share
        for core in by_cluster[at]:
            if len(bits) < upto:
                threads = _bits(core)
                used = threads[: upto - len(bits)] if smt is Smt.REQUIRE else threads[:1]
                bits += used
                idle |= core & ~_mask(used)
    return bits, idle


def _preferring(node: NodeCapacity, vcpus: int, shape: VcpuShape) -> list[int]:
    clusters, threads = node.grid.clusters, shape.threads
    torn = [_torn(node, cluster, vcpus) if threads > 1 else 0 for cluster in clusters]
    bits: list[int] = []
    free = node.free
    for at, share in _shares(node, node.free_in, torn, vcpus, shape):
        chosen = _from_cluster(clusters[at], free, share, threads)
        free &= ~_mask(chosen)
        bits += chosen
    return bits


def _shares(
    node: NodeCapacity, room: Sequence[int], torn: Sequence[int], vcpus: int, shape: VcpuShape
) -> list[tuple[int, int]]:
    """Which LLCs take how many vCPUs: one if it holds all, else the emptiest first, all they have.

    They are of one kind of core where one kind has room for all, else the faster ones come first.
    """
    clusters = node.grid.clusters
    left = list(_usable(clusters, room, vcpus)[0])
    lean = [_lean(cluster, shape.prefer) for cluster in clusters]
    shares: list[tuple[int, int]] = []
    while vcpus:
        fitting = [
            (-clusters[at].capacity, lean[at], torn[at], room[at], at)
            for at in left
            if room[at] >= vcpus
        ]
        if fitting:
            return [*shares, (min(fitting)[-1], vcpus)]
        best = min(
            (at for at in left if room[at]),
            key=lambda at: (-clusters[at].capacity, lean[at], -room[at], at),
        )
        left.remove(best)
        shares.append((best, _share(room[best], [room[at] for at in left], vcpus, shape)))
        vcpus -= shares[-1][1]
    return shares


def _share(most: int, others: Sequence[int], vcpus: int, shape: VcpuShape) -> int:
    """How many vCPUs an LLC takes that has room for so many, and not for all.

    Whole dies of the guest, or else whole cores, where the others have room for the rest.
    """
    if shape.die:
        dies = most - most % shape.die
        if dies and vcpus - dies <= sum(other - other % shape.die for other in others):
            return dies
    even = most - most % shape.threads
    return even if even and vcpus - even <= sum(others) else most


def _from_cluster(cluster: Cluster, free: int, vcpus: int, threads: int) -> list[int]:
    """Whole cores first; the rest on the most fragmented core that holds it."""
    cores = [core & free for core in cluster.cores if core & free]
    if cluster.threads == 1:
        return _bits(sum(cores[:vcpus]))
    whole = [core for core in cores if count(core) == cluster.threads]
    parts = sorted((core for core in cores if count(core) < cluster.threads), key=count)
    full = min(len(whole), vcpus // cluster.threads)
    bits = [bit for core in whole[:full] for bit in _bits(core)]
    rest = vcpus - len(bits)
    holding = [core for core in [*parts, *whole[full:]] if count(core) >= rest]
    if rest and holding:
        return bits + _bits(holding[0])[:rest]
    groups = sorted([*parts, *whole[full:]], key=lambda core: (-(count(core) // threads), core))
    for core in groups:
        usable = count(core) - count(core) % threads or count(core)
        bits += _bits(core)[: min(usable, vcpus - len(bits))]
    left = free & cluster.mask & ~_mask(bits)
    return bits + _bits(left)[: vcpus - len(bits)]


def _bits(mask: int) -> list[int]:
    bits = []
    while mask:
        low = mask & -mask
        bits.append(low.bit_length() - 1)
        mask ^= low
    return bits


def _mask(bits: list[int]) -> int:
    return sum(1 << bit for bit in bits)
