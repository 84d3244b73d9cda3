# SPDX-License-Identifier: GPL-2.0-or-later
"""What KSM saves and costs, and the pools of huge pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.metrics.family import FamilySamples, family
from tuned_virt.model.topology.huge_pages import Pool

KSM_RUN = family("ksm_run", "0: KSM is stopped, 1: it merges, 2: stopped and all pages unmerged.")
KSM_SAVED = family("ksm_saved_bytes", "Memory that KSM saves (pages_sharing and ksm_zero_pages).")
KSM_SHARED = family("ksm_shared_bytes", "Memory of merged pages, each of which replaces several.")
KSM_PROFIT = family(
    "ksm_profit_bytes",
    "What KSM saves less its bookkeeping (general_profit); can be negative.",
)
KSM_CPU = family("ksm_cpu_seconds_total", "CPU time that ksmd has used since boot.")
KSM_SCANS = family("ksm_full_scans_total", "Times that ksmd has scanned all mergeable memory.")

POOL = family("hugepages_pool_bytes", "Huge pages of a pool, surplus included.", "node", "size")
FREE = family("hugepages_free_bytes", "Huge pages of a pool that nobody has.", "node", "size")
SURPLUS = family(
    "hugepages_surplus_bytes",
    "Huge pages of a pool that return to the kernel once they are free.",
    "node",
    "size",
)
RESERVED = family(
    "hugepages_reserved_bytes", "Free huge pages that are promised, of all nodes.", "size"
)


@dataclass(frozen=True)
class KsmValues:
    """KSM, in bytes and seconds; None is what this kernel does not tell."""

    run: int
    saved: int
    shared: int | None
    profit: int | None
    cpu: float | None
    scans: int | None


def of_ksm(values: KsmValues) -> Iterator[FamilySamples]:
    """The families of KSM."""
    yield KSM_RUN.of(values.run)
    yield KSM_SAVED.of(values.saved)
    yield KSM_SHARED.of(values.shared)
    yield KSM_PROFIT.of(values.profit)
    yield KSM_CPU.of(values.cpu)
    yield KSM_SCANS.of(values.scans)


def of_pools(
    pools: Sequence[Pool], reserved: Mapping[int, int], size_name: Callable[[int], str]
) -> Iterator[FamilySamples]:
    """The families of huge pages; `reserved` are pages by size in KiB."""
    at = {(str(pool.node), size_name(pool.size_kib)): pool for pool in pools}
    yield POOL.by({key: pool.total * pool.size_kib * 1024 for key, pool in at.items()})
    yield FREE.by({key: pool.free * pool.size_kib * 1024 for key, pool in at.items()})
    yield SURPLUS.by({key: pool.surplus * pool.size_kib * 1024 for key, pool in at.items()})
    yield RESERVED.by({(size_name(kib),): count * kib * 1024 for kib, count in reserved.items()})
