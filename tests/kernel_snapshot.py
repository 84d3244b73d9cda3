# SPDX-License-Identifier: GPL-2.0-or-later
"""Print as JSON every writable kernel value that a part of our profiles may write, by path."""

from __future__ import annotations

import glob
import json
import os
import stat

PATTERNS = (
    "/sys/kernel/mm/ksm/*",
    "/sys/kernel/mm/transparent_hugepage/*",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/*",
    "/sys/kernel/mm/hugepages/*/nr_overcommit_hugepages",
    "/sys/devices/system/node/node*/hugepages/*/nr_hugepages",
    "/sys/devices/system/memory/auto_online_blocks",
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    "/proc/sys/vm/*",
    "/proc/sys/net/core/*",
    "/proc/sys/net/ipv4/conf/*/*",
    "/sys/block/*/queue/*",
    "/sys/block/*/queue/iosched/*",
)


def snapshot() -> dict[str, str]:
    """Values by path; files that cannot be read or are not settings are left out."""
    values = {}
    for pattern in PATTERNS:
        for path in glob.glob(pattern):
            mode = os.stat(path).st_mode
            if stat.S_ISREG(mode) and mode & stat.S_IWUSR and mode & stat.S_IRUSR:
                try:
                    with open(path) as file:
                        values[path] = file.read().strip()
                except OSError:
                    continue
    return values


if __name__ == "__main__":
    print(json.dumps(snapshot()))
