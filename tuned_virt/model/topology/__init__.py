# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine: its NUMA nodes and memory now, and all of it as the planner needs it (`Host`)."""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from tuned_virt.model.topology.host import Cache, CpuDetail, Host, HostError, NumaNode
    from tuned_virt.model.topology.sysfs import measured, overlay, read
else:

    def __getattr__(name: str) -> Any:
        """A whole host, imported once somebody asks for one: an advice to libvirt does without."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = {"measured": "sysfs", "overlay": "sysfs", "read": "sysfs"}.get(name, "host")
        return getattr(import_module(f"{__name__}.{module}"), name)


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
