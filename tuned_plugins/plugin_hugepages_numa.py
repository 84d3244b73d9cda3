# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `hugepages_numa`: huge page pools per NUMA node and size, and their mounts."""

from __future__ import annotations

from tuned_virt import registry
from tuned_virt.tuned_api import planned_plugin


class HugepagesNumaPlugin(planned_plugin.PlannedPlugin):  # type: ignore[misc]
    """
    `hugepages_numa`::

    Pools of huge pages on each NUMA node and of each size, where they are mounted, and transparent
    huge pages.
    +
    [option]`pages_2M`, [option]`pages_1G` and so on say how many pages which node has:
    `0:512,1:25%`, `all:512` (each node with memory), or `guests` (what the guests of libvirt ask
    for). A request that a node cannot spare is refused before the first write. What a node does not
    yield at once is compacted for, see [option]`remedies`. Pages that guests have mapped are never
    taken.
    +
    Allocating many pages takes a while and goes on in the background; `tuned-virt status` shows it.
    +
    .4 GiB in pages of 1 GiB on nodes 0 and 1, and 512 pages of 2 MiB on each node
    ====
    ----
    [hugepages_numa]
    pages_1G=0:4,1:4
    pages_2M=all:512
    mount_1G=/dev/hugepages1G
    ----
    ====
    """

    tuner = registry.tuner("hugepages_numa")
