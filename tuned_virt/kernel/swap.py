# SPDX-License-Identifier: GPL-2.0-or-later
"""Where swap is, and what swappiness that calls for.

The kernel's Documentation/admin-guide/sysctl/vm.rst: with swap in memory (zram, zswap) values over
100 can be considered; 133 where swapping costs half of what reading from a file system does.
"""

from __future__ import annotations

from tuned_virt.kernel.files import KernelFS

IN_MEMORY = "133"

SWAPS = "/proc/swaps"
ZSWAP = "/sys/module/zswap/parameters/enabled"


def swappiness(fs: KernelFS, default: str) -> str:
    """The kernel's advice where the swap that is used first is in memory, else the default.

    Areas of the same priority are used in turn (swapon(2)).
    """
    places = [line.split() for line in (fs.read_optional(SWAPS) or "").splitlines()[1:]]
    if not places:
        return default
    highest = max(int(fields[-1]) for fields in places)
    first = [fields[0].rpartition("/")[2] for fields in places if int(fields[-1]) == highest]
    zram = all(name.startswith("zram") for name in first)
    return IN_MEMORY if zram or fs.read_permitted(ZSWAP) in ("Y", "1") else default
