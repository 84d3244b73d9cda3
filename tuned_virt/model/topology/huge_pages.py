# SPDX-License-Identifier: GPL-2.0-or-later
"""The pools of huge pages as the kernel has them, by NUMA node and size (its
Documentation/admin-guide/mm/hugetlbpage.rst)."""

# Annotations are no text here: typing compiles those of a NamedTuple, 1 ms for the first of them.

import re
from typing import NamedTuple, Optional

from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology.memory import NODES

FOLDER = "/sys/kernel/mm/hugepages"


class Pool(NamedTuple):
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


def folder(node: Optional[int], size_kib: int) -> str:
    """The folder of a node's pool; of no node, that of the whole machine."""
    return f"{_top(node)}/hugepages-{size_kib}kB"


def sizes(fs: KernelFS, node: Optional[int]) -> list[int]:
    """Sizes in KiB of which a node has a pool. Raises KernelFileError."""
    found = (re.fullmatch(r"hugepages-(\d+)kB", name) for name in fs.names(_top(node)))
    return sorted(int(name[1]) for name in found if name)


def pools_of(fs: KernelFS, node: Optional[int]) -> list[Pool]:
    """A node's pools, by size; of no node, those of the whole machine as node 0's: a kernel without
    NUMA has no others. Raises KernelFileError."""
    return [_pool(fs, node, size) for size in sizes(fs, node)]


def _top(node: Optional[int]) -> str:
    return FOLDER if node is None else f"{NODES}/node{node}/hugepages"


def _pool(fs: KernelFS, node: Optional[int], size_kib: int) -> Pool:
    home = folder(node, size_kib)
    return Pool(
        node=node or 0,
        size_kib=size_kib,
        total=fs.read_number(f"{home}/nr_hugepages"),
        free=fs.read_number(f"{home}/free_hugepages"),
        surplus=fs.read_number(f"{home}/surplus_hugepages"),
    )
