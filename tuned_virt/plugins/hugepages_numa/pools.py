# SPDX-License-Identifier: GPL-2.0-or-later
"""The pools of each NUMA node and size as the kernel has them, and who has pages of them mapped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFS, active_word
from tuned_virt.model import topology
from tuned_virt.model.topology.huge_pages import Pool, folder, pools_of, sizes

TRANSPARENT = "/sys/kernel/mm/transparent_hugepage"

UNITS = ((1 << 20, "G"), (1 << 10, "M"))


@dataclass(frozen=True)
class TransparentHugePages:
    """Transparent huge pages: the settings' words, and those of anonymous memory in KiB.

    shmem  for shared memory; "" in kernels without
    sizes  by size in KiB (kernels since 6.8): always, madvise, never, or inherit `enabled`
    """

    enabled: str
    defrag: str
    anonymous: int
    shmem: str = ""
    sizes: Mapping[int, str] = field(default_factory=dict)


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
    found = [pool for node in topology.node_numbers(fs) for pool in pools_of(fs, node)]
    if not found:
        return pools_of(fs, None)
    with_memory = topology.memory_nodes(fs)
    return [pool for pool in found if not with_memory or pool.node in with_memory]


def reserved(fs: KernelFS) -> dict[int, int]:
    """Free pages that are promised to mappings already, by size in KiB, of all nodes together.

    The kernel does not count them by node.
    """
    return {
        size: fs.read_number(f"{folder(None, size)}/resv_hugepages") for size in sizes(fs, None)
    }


def transparent(fs: KernelFS) -> TransparentHugePages | None:
    """What transparent huge pages are set to; None in a kernel without them."""
    enabled = fs.read_optional(f"{TRANSPARENT}/enabled")
    if enabled is None:
        return None
    defrag = fs.read_optional(f"{TRANSPARENT}/defrag") or ""
    anonymous = topology.meminfo(fs).get("AnonHugePages", 0)
    shmem = active_word(fs.read_optional(f"{TRANSPARENT}/shmem_enabled") or "")
    return TransparentHugePages(
        active_word(enabled), active_word(defrag), anonymous, shmem, transparent_sizes(fs)
    )


def transparent_sizes(fs: KernelFS) -> dict[int, str]:
    """Which memory gets transparent huge pages of each size in KiB, as the kernel's word."""
    folders = fs.glob(f"{TRANSPARENT}/hugepages-*kB")
    words = {
        int(path.rpartition("-")[2][: -len("kB")]): fs.read_optional(f"{path}/enabled")
        for path in folders
    }
    return {size: active_word(word) for size, word in sorted(words.items()) if word is not None}


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


def _numbers(pattern: str, words: list[str]) -> list[tuple[str, str]]:
    found = (re.fullmatch(pattern, word, re.ASCII) for word in words)
    return [(match[1], match[2]) for match in found if match]
