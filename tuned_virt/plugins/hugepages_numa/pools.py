# SPDX-License-Identifier: GPL-2.0-or-later
"""The pools of each NUMA node and size as the kernel has them, and who has pages of them mapped."""

from __future__ import annotations

import re
from collections import Counter

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFS, active_word
from tuned_virt.model import topology

FOLDER = "/sys/kernel/mm/hugepages"
TRANSPARENT = "/sys/kernel/mm/transparent_hugepage"

UNITS = ((1 << 20, "G"), (1 << 10, "M"))


@dataclass(frozen=True)
class Pool:
    """A node's huge pages of one size: `size_kib` in KiB, the rest in pages of that size.

    `surplus` are those of `total` that go back to the kernel once nobody uses them.
    """

    node: int
    size_kib: int
    total: int
    free: int
    surplus: int

    @property
    def persistent(self) -> int:
        """Pages that stay in the pool when they are freed."""
        return self.total - self.surplus

    @property
    def mapped(self) -> int:
        """Pages that guests and others use."""
        return self.total - self.free

    def growth(self, persistent: int) -> int:
        """Pages that so many persistent ones take from the kernel; negative: give back to it.

        More turn surplus pages into persistent ones first. Less frees none that are mapped, which
        become surplus instead (mm/hugetlb.c, set_max_huge_pages).
        """
        if persistent >= self.persistent:
            return max(0, persistent - self.total)
        return min(0, max(persistent, self.mapped) - self.persistent)

    @property
    def mib(self) -> int:
        """Memory of all its pages in MiB, rounded down."""
        return self.total * self.size_kib // 1024


@dataclass(frozen=True)
class TransparentHugePages:
    """Transparent huge pages: the two settings' words, and those of anonymous memory in KiB."""

    enabled: str
    defrag: str
    anonymous: int


def size_name(kib: int) -> str:
    """A page size as the kernel's command line has it: 2048 → "2M", 1048576 → "1G"."""
    for unit, letter in UNITS:
        if kib % unit == 0:
            return f"{kib // unit}{letter}"
    return f"{kib}K"


def size_of(name: str) -> int:
    """The other way round: "2M" → 2048 KiB. Raises ValueError."""
    found = re.fullmatch(r"([1-9]\d{0,8})([KMG])", name, re.ASCII)
    if not found:
        raise ValueError(name)
    return int(found[1]) * dict((letter, unit) for unit, letter in (*UNITS, (1, "K")))[found[2]]


def folder(node: int, size_kib: int) -> str:
    """The folder of a node's pool."""
    return f"{topology.NODES}/node{node}/hugepages/hugepages-{size_kib}kB"


def persistent(fs: KernelFS, node: int, size_kib: int) -> int:
    """The persistent pages of one pool now. Raises KernelFileError."""
    home = folder(node, size_kib)
    surplus = fs.read_number(f"{home}/surplus_hugepages")
    return int(fs.read(f"{home}/nr_hugepages")) - surplus


def read(fs: KernelFS) -> list[Pool]:
    """The pools by node and size; empty in a kernel without huge pages.

    Nodes without memory are left out: newer kernels have empty pools for them that cannot be
    filled. A kernel without NUMA has one node, 0.
    """
    folders = fs.glob(f"{topology.NODES}/node[0-9]*/hugepages/hugepages-*kB")
    with_memory = topology.memory_nodes(fs)
    pools = [_pool(fs, path) for path in folders or fs.glob(f"{FOLDER}/hugepages-*kB")]
    kept = [pool for pool in pools if not folders or not with_memory or pool.node in with_memory]
    return sorted(kept, key=lambda pool: (pool.node, pool.size_kib))


def reserved(fs: KernelFS) -> dict[int, int]:
    """Free pages that are promised to mappings already, by size in KiB, of all nodes together.

    The kernel does not count them by node.
    """
    folders = fs.glob(f"{FOLDER}/hugepages-*kB")
    sizes = {_size(path): fs.read_number(f"{path}/resv_hugepages") for path in folders}
    return dict(sorted(sizes.items()))


def transparent(fs: KernelFS) -> TransparentHugePages | None:
    """What transparent huge pages are set to; None in a kernel without them."""
    enabled = fs.read_optional(f"{TRANSPARENT}/enabled")
    if enabled is None:
        return None
    defrag = fs.read_optional(f"{TRANSPARENT}/defrag") or ""
    anonymous = topology.meminfo(fs).get("AnonHugePages", 0)
    return TransparentHugePages(active_word(enabled), active_word(defrag), anonymous)


def used(text: str) -> dict[tuple[int, int], int]:
    """Pages that a process has mapped, by node and size in KiB, from its numa_maps (proc(5)).

    Transparent huge pages are not in it. A page that is mapped twice counts twice.
    """
    pages: Counter[tuple[int, int]] = Counter()
    for line in text.split("\n"):
        words = line.split()
        size = _numbers(r"(kernelpagesize_kB)=([1-9]\d{0,17})", words)
        if "huge" in words and size:
            for node, count in _numbers(r"N(\d{1,9})=(\d{1,18})", words):
                pages[int(node), int(size[0][1])] += int(count)
    return {place: count for place, count in sorted(pages.items()) if count}


def mapped(fs: KernelFS, pid: int) -> int | None:
    """KiB of huge pages that a process has mapped, or None where it ended or the kernel is old.

    Unlike numa_maps, /proc/PID/status (since Linux 4.4) is for everybody to read and costs nothing.
    It can miss memory that is shared with another process which touched it first.
    """
    return procfs.kib(procfs.status(fs, str(pid)), "HugetlbPages")


def _pool(fs: KernelFS, path: str) -> Pool:
    node = re.search(r"/node(\d+)/", path)
    return Pool(
        node=int(node[1]) if node else 0,
        size_kib=_size(path),
        total=fs.read_number(f"{path}/nr_hugepages"),
        free=fs.read_number(f"{path}/free_hugepages"),
        surplus=fs.read_number(f"{path}/surplus_hugepages"),
    )


def _size(path: str) -> int:
    return int(path.rpartition("-")[2][: -len("kB")])


def _numbers(pattern: str, words: list[str]) -> list[tuple[str, str]]:
    found = (re.fullmatch(pattern, word, re.ASCII) for word in words)
    return [(match[1], match[2]) for match in found if match]
