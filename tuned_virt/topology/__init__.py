"""The machine: its NUMA nodes and memory now, and all of it as the planner needs it (`Host`)."""

from tuned_virt.topology.host import CpuDetail, Host, HostError, NumaNode
from tuned_virt.topology.memory import (
    NODES,
    Node,
    meminfo,
    memory_nodes,
    node_meminfo,
    nodes,
    page_size,
)

__all__ = [
    "NODES",
    "CpuDetail",
    "Host",
    "HostError",
    "Node",
    "NumaNode",
    "meminfo",
    "memory_nodes",
    "node_meminfo",
    "nodes",
    "page_size",
]
