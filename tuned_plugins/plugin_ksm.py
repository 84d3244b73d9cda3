# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `ksm`: kernel samepage merging."""

from __future__ import annotations

from tuned_virt import registry
from tuned_virt.tuned_api import planned_plugin


class KsmPlugin(planned_plugin.PlannedPlugin):  # type: ignore[misc]
    """
    `ksm`::

    Kernel samepage merging (KSM): whether equal pages of guests are merged, how fast, and whether
    across NUMA nodes.
    +
    The option [option]`mode` says who decides: `auto` scans fast while memory is short and that
    saves memory, then slowly; `ksmtuned` is ksmtuned's algorithm with its tunables; `kernel` the
    kernel's advisor; `off` and `unmerge` stop; with `static`, the default, every file of
    `/sys/kernel/mm/ksm` that can be set is an option of the same name. What cannot be set while
    pages are merged is set after unmerging them with `unmerge=allow`, if there is enough memory.
    +
    The services ksm and ksmtuned are stopped, and started again when the profile no longer uses
    the plugin.
    +
    .Merge when memory is short, with at most 30 % of one CPU
    ====
    ----
    [ksm]
    mode=auto
    max_cpu=30
    merge_across_nodes=auto
    ----
    ====
    """

    tuner = registry.tuner("ksm")
