"""TuneD plugin `ksm`: kernel samepage merging."""

from __future__ import annotations

from tuned_virt import tuned_api, tuners


class KsmPlugin(tuned_api.PlannedPlugin):  # type: ignore[misc]
    """
    `ksm`::

    Kernel samepage merging (KSM): whether equal pages of guests are merged, how fast, and whether
    across NUMA nodes.
    +
    Every file of `/sys/kernel/mm/ksm` that can be set is an option of the same name. What cannot be
    set while pages are merged is set after unmerging them with `unmerge=allow`, if the memory is
    there. + .Merge at 1,000 pages a batch, never across NUMA nodes ==== ---- [ksm] run=1
    merge_across_nodes=auto pages_to_scan=1000 sleep_millisecs=20 ---- ====
    """

    tuner = tuners.TUNERS["ksm"]
