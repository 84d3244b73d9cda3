# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool's pages: allocated or given back on one node, in steps that can be ended between two.

A write of nr_hugepages returns success however few pages it got, and the same write again gets none
more, so that each is read back, and something is done before it is tried again: the node's memory
is compacted, then page cache is dropped (measured: pinned kernel pages in the way, 553 of 1000
pages; after compaction all). Pages of 1 GiB are not compacted for: it took 3 s and never helped.

Before Linux 6.7 the kernel counted surplus pages of all nodes against the node that is written to
("hugetlb: fix set_max_huge_pages when there are surplus pages"): the pool comes out too large by
the other nodes' surplus, which is subtracted here.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tuned_virt.core.plan import Change
from tuned_virt.core.tuner import Writer
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model import topology
from tuned_virt.model.topology.huge_pages import FOLDER, folder
from tuned_virt.plugins.hugepages_numa import boot, conflicts, mounts, pools, state
from tuned_virt.plugins.hugepages_numa.planner import MountChange, PoolChange
from tuned_virt.plugins.hugepages_numa.policy import Remedy
from tuned_virt.plugins.hugepages_numa.pools import size_name
from tuned_virt.plugins.hugepages_numa.progress import Progress, ProgressFile
from tuned_virt.plugins.hugepages_numa.setting_types import HugetlbMount, NotMounted

log = logging.getLogger("tuned")

STEP = 0.2
"""Seconds that one write should take: an end or a stop waits so long."""

FIRST_KIB = 8 << 20
"""KiB of the first write, the next ones are by what it took; of larger pages than the page
allocator's blocks, for which the kernel moves what is in their way, it is one page.

8 GiB took 7 ms of free memory, and 1 s where the kernel compacted for each page.
"""

GROWTH = 8
"""How many times the last write's pages the next one has at most."""

EVERY = 1.0
"""Seconds between words on the progress."""

SURPLUS_BY_NODE = (6, 7)
"""The first kernel that leaves other nodes' surplus out of it."""

TOO_MANY = "kernels before 6.7 keep at least as many as there are surplus pages on other nodes"

DROP_CACHES = "/proc/sys/vm/drop_caches"
PAGE_CACHE = "1"

KIB_IN_MIB = 1024


@dataclass
class Allocation:
    """One change of a pool being carried out. Raises KernelFileError where a file is refused.

    `tell` gets the progress every second; `release` is the kernel's version.
    """

    fs: KernelFS
    change: PoolChange
    abandoned: threading.Event
    release: tuple[int, int]
    tell: Callable[[Progress], None]

    def __post_init__(self) -> None:
        self._tried: list[str] = []
        self._others = 0
        self._began = self._told = time.monotonic()
        self._first = self._now = self._pages()

    def run(self) -> str:
        """Bring the pool to its target, or as near to it as the node allows; how near, in words."""
        if self.change.demote:
            self._split(self.change.pool.size_kib, self.change.demote)
        self._approach()
        for remedy in self.change.remedies:
            if self._short and REMEDIES[remedy](self):
                self._tried.append(remedy.value)
                self._approach()
        for size in self.change.lenders:
            if self._short and self._borrow(size):
                self._tried.append(f"demoting pages of {size_name(size)}")
        best = self._now
        if self.change.rollback and self._missing and not self.abandoned.is_set():
            self._set(self.change.before)
        return self._came_to(best)

    def _came_to(self, best: int) -> str:
        asked = f"{self._target} pages of {size_name(self.change.pool.size_kib)} requested"
        got = f"{best} got" + (f", after {', '.join(self._tried)}" if self._tried else "")
        if self._now > self._target:
            return f"{asked}, {got}; {TOO_MANY}, {self._others}"
        return f"{asked}, {got}" + (f"; rolled back to {self._now}" if self.change.rollback else "")

    # --- the pool -----------------------------------------------------------------------------

    @property
    def _target(self) -> int:
        return self.change.after

    @property
    def _missing(self) -> int:
        return max(0, self._target - self._now)

    @property
    def _short(self) -> bool:
        """Whether pages are missing and there is still time for them."""
        return bool(self._missing) and not self._over

    @property
    def _over(self) -> bool:
        late = time.monotonic() - self._began > self.change.timeout
        return late or self.abandoned.is_set()

    @property
    def _gigantic(self) -> bool:
        return self.change.pool.size_kib > topology.largest_block(self.fs)

    def _pages(self) -> int:
        """Persistent pages now."""
        return pools.persistent(self.fs, *self.change.pool)

    def _approach(self) -> None:
        """Write in steps until the target is reached or a step falls short."""
        step = 1 if self._gigantic else max(1, FIRST_KIB // self.change.pool.size_kib)
        while self._now != self._target and not self._over:
            aim = max(self._now - step, min(self._now + step, self._target))
            started = time.monotonic()
            self._set(aim)
            self._say()
            if self._now != aim:
                return
            step = next_step(step, time.monotonic() - started)

    def _set(self, aim: int) -> None:
        """Write a number of persistent pages, and read how many there are then."""
        self._others = 0 if self.release >= SURPLUS_BY_NODE else self._surplus_elsewhere()
        self._write(max(0, aim - self._others))
        if self._others and self._now == aim - self._others:  # the fault is mended in this kernel
            self._write(aim)

    def _write(self, number: int) -> None:
        self.fs.write(self.change.path, str(number))
        self._now = self._pages()

    def _surplus_elsewhere(self) -> int:
        size = self.change.pool.size_kib
        everywhere = self.fs.read_number(f"{FOLDER}/hugepages-{size}kB/surplus_hugepages")
        here = self.fs.read_number(f"{folder(self.change.pool.node, size)}/surplus_hugepages")
        return everywhere - here

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._told < EVERY:
            return
        self._told = now
        mib = abs(self._now - self._first) * self.change.pool.size_kib / KIB_IN_MIB
        self.tell(Progress(*self.change.pool, self._now, self._target, mib / (now - self._began)))

    # --- remedies -----------------------------------------------------------------------------

    def _split(self, size_kib: int, pages: int) -> None:
        """Split free pages of a pool of this node into those of the next smaller size.

        The kernel returns success also where none is free.
        """
        self.fs.write(f"{folder(self.change.pool.node, size_kib)}/demote", str(pages))
        self._now = self._pages()

    def _borrow(self, size_kib: int) -> bool:
        """Split as many larger pages as are missing; whether that brought any."""
        before = self._now
        self._split(size_kib, -(-self._missing * self.change.pool.size_kib // size_kib))
        brought = self._now > before
        if self._now > self._target:
            self._set(self._target)
        return brought

    def compact(self) -> bool:
        """Compact the node's memory; whether the kernel can, and whether that is of any use.

        For pages beyond the page allocator's blocks the kernel moves what is in their way itself.
        """
        if self._gigantic:
            return False
        return self._remedy(f"{topology.NODES}/node{self.change.pool.node}/compact", "1")

    def drop_caches(self) -> bool:
        """Drop page cache: this node's where the kernel can (6.18), else that of all nodes."""
        reclaim = f"{topology.NODES}/node{self.change.pool.node}/reclaim"
        if self.fs.exists(reclaim):
            missing = self._missing * self.change.pool.size_kib
            dropped = self._remedy(reclaim, f"{missing}K swappiness=0")
        else:
            dropped = self._remedy(DROP_CACHES, PAGE_CACHE)
        return self.compact() or dropped

    def _remedy(self, path: str, value: str) -> bool:
        try:
            self.fs.write(path, value)
        except KernelFileError as error:
            log.debug("hugepages_numa: %s", error)
            return False
        return True


REMEDIES: dict[Remedy, Callable[[Allocation], bool]] = {
    Remedy.COMPACT: Allocation.compact,
    Remedy.DROP_CACHES: Allocation.drop_caches,
}


def next_step(step: int, seconds: float) -> int:
    """Pages of the next write, by what the last one took."""
    return max(1, min(GROWTH * step, int(step * STEP / max(seconds, 1e-6))))


class HugepagesWriter(Writer):
    """Pools in steps, mounts by mount(8), the rest by their files."""

    def __init__(self, progress: ProgressFile) -> None:
        self._progress = progress

    def current(self, fs: KernelFS, change: Change) -> object:
        """Persistent pages of a pool, a mount or what is there, else the file's word."""
        if isinstance(change, PoolChange):
            return pools.persistent(fs, *change.pool)
        if isinstance(change, MountChange):
            mount = change.after if isinstance(change.after, HugetlbMount) else None
            there = mounts.read(fs, state.default_size(fs))
            wanted = mount or HugetlbMount(change.path)
            return mounts.found(fs, wanted, change.mount.size_kib, there)
        return super().current(fs, change)

    def took(self, change: Change, now: object) -> bool:
        """A mount that is gone is gone, also where somebody keeps something in its folder."""
        if isinstance(change.after, NotMounted) and not change.after.other_kib:
            return isinstance(now, NotMounted) and not now.other_kib
        return super().took(change, now)

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """Mount or unmount, or bring a pool to its size; the rest is a write."""
        if isinstance(change, PoolChange):
            return self._allocate(fs, change, abandoned)
        if isinstance(change, MountChange):
            mounts.write(fs, change.mount, change.after)
            conflicts.restart(change.restart)
            return ""
        return super().write(fs, change, abandoned)

    def _allocate(self, fs: KernelFS, change: PoolChange, abandoned: threading.Event) -> str:
        """What a pool came out short of, and what was tried."""
        release = boot.version(os.uname().release)
        allocation = Allocation(fs, change, abandoned, release, self._tell)
        try:
            return allocation.run()
        finally:
            self._progress.remove()

    def _tell(self, progress: Progress) -> None:
        log.info("hugepages_numa: %s", progress)
        self._progress.write(progress)
