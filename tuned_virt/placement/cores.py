# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPUs of a node a guest's vCPUs are given: LLCs kept whole, whole cores first."""

from __future__ import annotations

from tuned_virt.model.topology.grid import Cluster
from tuned_virt.placement.node_capacity import NodeCapacity, count
from tuned_virt.placement.policy import Smt


def fit(node: NodeCapacity, vcpus: int, threads: int) -> tuple[int, int, int]:
    """How well a guest of so many vCPUs would sit on a node's free CPUs, smaller is better.

    LLCs spanned, guest cores that would be torn apart, and CPUs left over in the last LLC: of the
    fastest cores that hold it.
    """
    best = None
    for cluster, free in zip(node.grid.clusters, node.free_in):
        if free >= vcpus:
            torn = _torn(node, cluster, vcpus) if threads > 1 else 0
            key = (-cluster.capacity, torn, free - vcpus)
            best = key if best is None or key < best else best
    if best:
        return 1, best[1], best[2]
    spans, rest = 0, vcpus
    for free in sorted(node.free_in, reverse=True):
        spans += 1
        rest -= free
        if rest <= 0:
            break
    return spans, 0, -rest


def _torn(node: NodeCapacity, cluster: Cluster, vcpus: int) -> int:
    """Whole cores that the guest would fill and that the cluster does not have."""
    if cluster.threads == 1:
        return 0
    whole = sum(core & node.free == core for core in cluster.cores)
    return max(0, vcpus // cluster.threads - whole)


def allot(node: NodeCapacity, vcpus: int, threads: int, smt: Smt) -> tuple[list[int], int]:
    """CPUs for so many vCPUs, as bits in their order, and the mask of CPUs to be kept idle.

    There must be room (see NodeCapacity.dedicable). threads: vCPUs that the guest takes for a core.
    """
    if smt is Smt.PREFER:
        return _preferring(node, vcpus, threads), 0
    return _whole(node, vcpus, smt)


def _whole(node: NodeCapacity, vcpus: int, smt: Smt) -> tuple[list[int], int]:
    """Cores of which nobody else gets anything, from as few LLCs as possible."""
    cores = set(node.whole_cores(smt))
    by_cluster = [[core for core in c.cores if core in cores] for c in node.grid.clusters]
    bits: list[int] = []
    idle = 0
    while len(bits) < vcpus:
        best = min(by_cluster, key=lambda some: _waste(some, vcpus - len(bits), smt))
        for core in best:
            if len(bits) < vcpus:
                threads = _bits(core)
                used = threads[: vcpus - len(bits)] if smt is Smt.REQUIRE else threads[:1]
                bits += used
                idle |= core & ~_mask(used)
        by_cluster.remove(best)
    return bits, idle


def _waste(cores: list[int], vcpus: int, smt: Smt) -> tuple[bool, int]:
    """Best fit: the fewest left over where it holds all, else the one that holds most."""
    most = sum(map(count, cores)) if smt is Smt.REQUIRE else len(cores)
    return (most < vcpus, most if most >= vcpus else -most)


def _preferring(node: NodeCapacity, vcpus: int, threads: int) -> list[int]:
    bits: list[int] = []
    free = node.free
    for cluster, share in _shares(node, vcpus, threads):
        chosen = _from_cluster(cluster, free, share, threads)
        free &= ~_mask(chosen)
        bits += chosen
    return bits


def _shares(node: NodeCapacity, vcpus: int, threads: int) -> list[tuple[Cluster, int]]:
    """How many vCPUs each LLC takes: one if it holds all, else the emptiest first, all they have.

    Those of faster cores come first (performance cores before efficient ones).
    An LLC's share is a multiple of the guest's threads where the others have room for the rest.
    """
    left = list(zip(node.grid.clusters, node.free_in))
    shares: list[tuple[Cluster, int]] = []
    while vcpus:
        fitting = [
            (-cluster.capacity, _torn(node, cluster, vcpus) if threads > 1 else 0, free, at)
            for at, (cluster, free) in enumerate(left)
            if free >= vcpus
        ]
        if fitting:
            return [*shares, (left[min(fitting)[-1]][0], vcpus)]
        capacity = max(cluster.capacity for cluster, free in left if free)
        fastest = [at for at, (cluster, _) in enumerate(left) if cluster.capacity == capacity]
        cluster, free = left.pop(max(fastest, key=lambda at: (left[at][1], -at)))
        even = free - free % threads
        share = even if even and vcpus - even <= sum(other for _, other in left) else free
        shares.append((cluster, share))
        vcpus -= share
    return shares


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
