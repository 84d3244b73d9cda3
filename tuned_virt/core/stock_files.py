# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel files that options of TuneD's own plugins sysctl, sysfs and vm set."""

from __future__ import annotations

import re
from collections.abc import Mapping

THP = "/sys/kernel/mm/transparent_hugepage"

VM_FILES: Mapping[str, str] = {
    "transparent_hugepages": f"{THP}/enabled",
    "transparent_hugepage": f"{THP}/enabled",
    "transparent_hugepage.defrag": f"{THP}/defrag",
    **{f"dirty_{end}": f"/proc/sys/vm/dirty_{end}" for end in ("ratio", "bytes")},
    **{
        f"dirty_background_{end}": f"/proc/sys/vm/dirty_background_{end}"
        for end in ("ratio", "bytes")
    },
}
"""Options of TuneD's plugin vm (dirty_… since 2.25)."""


QUEUE = re.compile(r"/sys/(?:class/block|devices/.+)/([^/]+)/queue/")
"""A block device's queue by the other paths that sysfs has for it."""


def pattern(plugin: str, option: str) -> str:
    """The file that an option sets, with * and ? where it is sysfs's; "" where there is none.

    What is set of a block device's queue is below /sys/block.
    """
    if plugin == "sysfs":
        return QUEUE.sub(r"/sys/block/\1/queue/", option, count=1)
    if plugin == "sysctl":
        return f"/proc/sys/{option.replace('.', '/')}"
    return VM_FILES.get(option, "") if plugin == "vm" else ""
