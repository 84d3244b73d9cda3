# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM's files: what each takes, what the kernel does not check, and the order of writing.

Sources: the kernel's Documentation/admin-guide/mm/ksm.rst and mm/ksm.c; the guide's chapters 8.4
and 9.4. merge_across_nodes and max_page_sharing are refused (EBUSY) while any page is shared, and
only run=2, which needs the memory that merging saved, changes that. advisor_mode=none sets
pages_to_scan to 100; pages_to_scan is refused (EINVAL) while the advisor chooses it. run=2 makes
the copies in the context of the process that writes it, so they come to the NUMA node of the CPU it
runs on: measured with two processes on nodes 0 and 2, all of whose pages were on node 3 afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tuned_virt.core.options import Number, OneOf
from tuned_virt.core.plan import Values
from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.kernel.files import KernelFS, active_word
from tuned_virt.model import topology
from tuned_virt.plugins.ksm import memory_cgroups
from tuned_virt.plugins.ksm.conflicts import KsmConflicts
from tuned_virt.plugins.ksm.memory_cgroups import MemoryCgroup

FOLDER = "/sys/kernel/mm/ksm"

SETTINGS: Mapping[str, Number | OneOf] = {
    "merge_across_nodes": OneOf(("0", "1", "auto")),
    "max_page_sharing": Number(2, 2**31 - 1, "virtual pages per physical page"),
    "use_zero_pages": OneOf(("0", "1")),
    "smart_scan": OneOf(("0", "1")),
    "stable_node_chains_prune_millisecs": Number(1, 2**32 - 1, "ms"),
    "advisor_min_pages_to_scan": Number(1, 1_000_000, "pages per scan"),
    "advisor_max_pages_to_scan": Number(1, 1_000_000, "pages per scan"),
    "advisor_target_scan_time": Number(1, 86_400, "s"),
    "advisor_max_cpu": Number(1, 100, "percent of one CPU"),
    "advisor_mode": OneOf(("none", "scan-time")),
    "pages_to_scan": Number(1, 1_000_000, "pages per scan"),
    "sleep_millisecs": Number(1, 3_600_000, "ms"),
    "run": OneOf(("0", "1", "2")),
}
"""What each file takes, in the order of writing: the advisor before pages_to_scan, run last.

The kernel takes more (0 or 4294967295 pages, no sleep, an advisor of 1000 %): ksmd then does
nothing or takes a whole CPU.
"""

UNMERGED_FIRST = ("merge_across_nodes", "max_page_sharing")
"""The kernel refuses to change these while pages are shared."""


@dataclass(frozen=True)
class KsmState:
    """KSM as the kernel shows it; `values` is empty in a kernel without KSM.

    Counters are the kernel's, in pages of `page_size` bytes; `available` is MemAvailable in KiB,
    read only where pages are merged, as are `cgroups`, those with limits that hold merged pages;
    `merging` counts the pages that live processes have merged (None: not told, by an old kernel or
    in a container); `conflicts` are who else controls KSM.
    """

    values: Values
    pages_shared: int = 0
    pages_sharing: int = 0
    zero_pages: int = 0
    merging: int | None = None
    available: int = 0
    page_size: int = 4096
    nodes: int = 1
    cgroups: tuple[MemoryCgroup, ...] = ()
    conflicts: KsmConflicts = field(default_factory=KsmConflicts)

    @property
    def saved(self) -> int:
        """KiB that unmerging everything would take."""
        if self.merging == 0:
            return self.zero_pages * self.page_size // 1024
        return (self.pages_sharing + self.zero_pages) * self.page_size // 1024


def read(fs: KernelFS, conflicts: KsmConflicts | None = None) -> KsmState:
    """KSM's state from the kernel."""
    values = {}
    for name in SETTINGS:
        text = fs.read_optional(f"{FOLDER}/{name}")
        if text is not None:
            values[name] = active_word(text)
    pages_shared = fs.read_number(f"{FOLDER}/pages_shared")
    zero_pages = fs.read_number(f"{FOLDER}/ksm_zero_pages")
    state = KsmState(
        values=values,
        pages_shared=pages_shared,
        pages_sharing=fs.read_number(f"{FOLDER}/pages_sharing"),
        zero_pages=zero_pages,
        merging=0,
        page_size=topology.page_size(),
        nodes=len(topology.memory_nodes(fs)),
        conflicts=conflicts or KsmConflicts(),
    )
    if not pages_shared and not zero_pages:
        return state
    merged = memory_cgroups.merged_pages(fs)
    holders = Counter(memory_cgroups.of_guests(fs) if merged is None else merged)
    holders.update(memory_cgroups.zero_pages(fs) if zero_pages and merged is not None else {})
    return replace(
        state,
        merging=sum(merged.values()) if merged is not None and fs.sees_all_processes() else None,
        available=topology.meminfo(fs).get("MemAvailable", 0),
        cgroups=memory_cgroups.read(fs, holders),
    )
