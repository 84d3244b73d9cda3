# SPDX-License-Identifier: GPL-2.0-or-later
"""Every writable kernel value that a part of our profiles may write, by path: printed as JSON."""

from __future__ import annotations

import glob
import json
import os
import stat
from collections.abc import Mapping

KSM = "/sys/kernel/mm/ksm"

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


def active_word(text: str) -> str:
    """The chosen one of `always [madvise] never`; any other text as it is."""
    return text.partition("[")[2].partition("]")[0] or text


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Settings that are there still and not as before, with the word that puts them back."""
    return {
        path: active_word(value)
        for path, value in before.items()
        if path in now and now[path] != value and not _advised(path, before)
    }


def _advised(path: str, before: Mapping[str, str]) -> bool:
    """Whether it is the advisor that sets it."""
    mode = active_word(before.get(f"{KSM}/advisor_mode", "none"))
    return path == f"{KSM}/pages_to_scan" and mode != "none"


if __name__ == "__main__":
    print(json.dumps(snapshot()))
