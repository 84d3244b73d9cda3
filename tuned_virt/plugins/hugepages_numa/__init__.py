# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages: pools by NUMA node and size, their mounts, and transparent huge pages.

pools     what the kernel has            policy    what a profile may ask
demand    what guests ask for            state     the machine as a plan needs to know it
planner   policy → one plan (pure)       writer    a pool's pages, allocated or given back
mounts    hugetlbfs                      boot      the kernel's command line
conflicts who else decides on them       targets   what each pool is to have
progress  an allocation under way, on tmpfs
setting_types  pool, mount, … as objects, and as the texts that originals keep
plan_notes     what the kernel's command line should have, and what verify says besides
controller     pools follow guests, and nodes whose memory comes later
history        what guests have asked for lately; node_events: the kernel's, of memory
plugin         all of it for the engine
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuned_virt.plugins.hugepages_numa.plugin import HugepagesTuner
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy, parse

if TYPE_CHECKING:
    from tuned_virt.plugins.hugepages_numa.planner import plan
else:

    def __getattr__(name: str) -> Any:
        """The planner, imported once somebody asks for it: most profiles ask for no huge pages."""
        if name == "plan":
            from tuned_virt.plugins.hugepages_numa.planner import plan

            return plan
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ("HugepagesPolicy", "HugepagesTuner", "parse", "plan")
