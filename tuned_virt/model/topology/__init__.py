# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine: its NUMA nodes and memory now, and all of it as the planner needs it (`Host`)."""

from tuned_virt.model.topology.host import Cache, CpuDetail, Host, HostError, NumaNode
from tuned_virt.model.topology.memory import (
    CACHE,
    NODES,
    MemoryNode,
    largest_block,
    meminfo,
    memory_nodes,
    node_meminfo,
    node_numbers,
    nodes,
    nodes_without_cpus,
    page_size,
)
from tuned_virt.model.topology.sysfs import measured, overlay, read

__all__ = [
    "CACHE",
    "NODES",
    "Cache",
    "CpuDetail",
    "Host",
    "HostError",
    "MemoryNode",
    "NumaNode",
    "largest_block",
    "measured",
    "meminfo",
    "memory_nodes",
    "node_meminfo",
    "node_numbers",
    "nodes",
    "nodes_without_cpus",
    "overlay",
    "page_size",
    "read",
]
