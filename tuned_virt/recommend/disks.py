# SPDX-License-Identifier: GPL-2.0-or-later
"""The scheduler of disks whose guests have I/O weights."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.recommend.advice import Advice, LeftSetting, RecommendedSetting
from tuned_virt.recommend.situation import Situation, count, named


def recommend(seen: Situation) -> Iterator[Advice]:
    """Weights need bfq; NVMe disks have a class of their own."""
    weighted = [one for one in seen.guests if one.hardware.blkio]
    if not weighted:
        yield LeftSetting(
            "disk_host_backing", "no guest has I/O weights; each disk has what suits its attachment"
        )
        return
    known = seen.scene.facts.backing.value
    slow = None if known is None else [disk for disk in known if not disk.startswith("nvme")]
    told = f"{count(len(weighted), 'guest')} with I/O weights: {named(weighted)}"
    if slow == []:
        yield LeftSetting("disk_host_backing", f"{told}, on NVMe disks or none: use io.cost there")
        return
    yield RecommendedSetting(
        "disk_host_backing",
        "bfq",
        f"{told}; disks: {', '.join(sorted(slow)[:5]) if slow else 'not known'}",
        "weights have an effect only where bfq schedules",
        "guide 7.1",
    )
