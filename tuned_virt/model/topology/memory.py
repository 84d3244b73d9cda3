# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's NUMA nodes and memory, from sysfs and procfs."""

# Annotations are no text here: typing compiles those of a NamedTuple, 1 ms for the first of them.

import os
import re
from typing import NamedTuple

from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFS

CACHE = ("Active(file)", "Inactive(file)", "SReclaimable")
"""What of a node's meminfo the kernel frees without swapping, as in its own estimate of
MemAvailable (si_mem_available), which there is only for the whole machine."""

NODES = "/sys/devices/system/node"


BUDDY_ORDER = 10
"""Of the largest block, in kernels that are built as usual (MAX_PAGE_ORDER)."""


class MemoryNode(NamedTuple):
    """One NUMA node: CPUs as a cpuset ("0-3,8"), memory in KiB, distances to the nodes.

    `cache` is what the kernel frees without swapping, see CACHE.
    """

    id: int
    cpus: str
    total: int
    free: int
    distances: tuple[int, ...]
    cache: int = 0


def page_size() -> int:
    """The kernel's base page in bytes."""
    return os.sysconf("SC_PAGE_SIZE")


def largest_block(fs: KernelFS) -> int:
    """The largest block of the kernel's page allocator, in KiB, from /proc/buddyinfo (proc(5)).

    Larger huge pages are put together from ranges of memory instead. 4 MiB where it is not told.
    """
    first = (fs.read_optional("/proc/buddyinfo") or "").partition("\n")[0]
    orders = len(first.partition("zone")[2].split()) - 1
    return page_size() // 1024 << (orders - 1 if orders > 0 else BUDDY_ORDER)


def meminfo(fs: KernelFS) -> dict[str, int]:
    """/proc/meminfo by name, in KiB (counts as they are); empty where it cannot be read."""
    return fields(fs.read_optional("/proc/meminfo") or "")


def node_meminfo(fs: KernelFS, node: int) -> dict[str, int]:
    """A node's meminfo by name, in KiB; empty in a kernel without NUMA."""
    return fields(fs.read_optional(f"{NODES}/node{node}/meminfo") or "")


def fields(text: str) -> dict[str, int]:
    """The lines of a meminfo file by name, in KiB (counts as they are)."""
    return {name: int(value) for name, value in re.findall(r"(\S+):\s+(\d+)", text)}


def node_numbers(fs: KernelFS) -> list[int]:
    """Numbers of the online nodes; none in a kernel without NUMA. Raises KernelFileError."""
    names = (re.fullmatch(r"node(\d+)", name) for name in fs.names(NODES))
    return sorted(int(name[1]) for name in names if name)


def nodes(fs: KernelFS) -> list[MemoryNode]:
    """The online NUMA nodes, by number; empty in a kernel without NUMA."""
    found = []
    for number in node_numbers(fs):
        path = f"{NODES}/node{number}"
        memory = node_meminfo(fs, number)
        found.append(
            MemoryNode(
                id=number,
                cpus=fs.read_optional(f"{path}/cpulist") or "",
                total=memory.get("MemTotal", 0),
                free=memory.get("MemFree", 0),
                distances=tuple(map(int, (fs.read_optional(f"{path}/distance") or "").split())),
                cache=sum(memory.get(name, 0) for name in CACHE),
            )
        )
    return found


def memory_nodes(fs: KernelFS) -> frozenset[int]:
    """Numbers of the nodes that have memory; empty in a kernel without NUMA."""
    return cpuset.parse(fs.read_optional(f"{NODES}/has_memory") or "")


def nodes_without_cpus(fs: KernelFS) -> frozenset[int]:
    """Nodes with memory alone (CXL, HBM, a GPU's); empty where the kernel does not tell."""
    text = fs.read_optional(f"{NODES}/has_cpu")
    return memory_nodes(fs) - cpuset.parse(text) if text else frozenset()
