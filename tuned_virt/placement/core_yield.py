# SPDX-License-Identifier: GPL-2.0-or-later
"""How much busy threads get of a set of CPUs, in cores of the fastest kind.

A core gives its one busy thread its capacity, and two or more together 1.3 times as much; threads
beyond that share. The kernel's scheduler fills idle cores first, the fastest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from tuned_virt.model.topology.grid import GridNode

SMT_GAIN = 0.3
"""What the second busy thread of a core adds, as a part of what one alone gets."""

FASTEST = 1024

Steps = Mapping[float, float]
"""What each of so many busy threads adds → how many of them."""


class CoreYield:
    """The cores that any number of busy threads get; equal ones are one object, see `of`."""

    def __init__(self, steps: tuple[tuple[float, float], ...]) -> None:
        self.steps = steps
        self.capacity = sum(gain * width for gain, width in steps)

    def total(self, threads: float) -> float:
        """Cores that so many get together."""
        cores = 0.0
        for gain, width in self.steps:
            if threads <= width:
                return cores + gain * threads
            cores += gain * width
            threads -= width
        return cores

    def share(self, threads: float) -> float:
        """Cores that each of so many gets; none is more than the first."""
        if threads > 0:
            return self.total(threads) / threads
        return self.steps[0][0] if self.steps else 0.0

    def most(self, share: float) -> float:
        """How many busy threads get at least so much each; share is above 0."""
        threads = cores = 0.0
        for gain, width in self.steps:
            if cores + gain * width < share * (threads + width):
                return (cores - gain * threads) / (share - gain) if gain < share else threads
            threads += width
            cores += gain * width
        return cores / share


@lru_cache(maxsize=1024)
def _of(steps: tuple[tuple[float, float], ...]) -> CoreYield:
    return CoreYield(steps)


def of(steps: Steps) -> CoreYield:
    """The yield of these steps."""
    return _of(tuple(sorted(steps.items(), reverse=True)))


def together(several: Iterable[CoreYield]) -> CoreYield:
    """The yield of several sets of CPUs between which threads may move."""
    total: dict[float, float] = {}
    for one in several:
        for gain, width in one.steps:
            total[gain] = total.get(gain, 0) + width
    return of(total)


def of_core(threads: int, capacity: int, of_threads: int) -> CoreYield:
    """Of a core of which so many threads may be used, out of those on which anybody runs.

    Where others have some of them, these get their part of what a full core gives.
    """
    speed = capacity / FASTEST
    total = 1 + SMT_GAIN if of_threads > 1 else 1
    mine = total * threads / of_threads
    first = min(1.0, mine)
    steps = {speed * first: 1.0}
    if threads > 1:
        steps[round(mine - first, 6) * speed] = 1.0
    return of(steps)


def of_node(node: GridNode, mask: int) -> CoreYield:
    """Of those of a node's CPUs that are in a mask; nobody runs on isolated ones."""
    return together(
        of_core(threads, cluster.capacity, bin(core & ~node.isolated).count("1"))
        for cluster in node.clusters
        if cluster.mask & mask
        for core in cluster.cores
        for threads in (bin(core & mask).count("1"),)
        if threads
    )
