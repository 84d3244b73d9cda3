# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of disks' queues, which may be busy, or may never drain."""

from __future__ import annotations

import errno
import re
import threading
import time

from tuned_virt.core.plan import Change
from tuned_virt.core.tuner import Writer
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.plugins.blk_elevator_virt import planner

JIFFY = 10
"""Most ms that a time may come back off: one jiffy of the slowest kernels (HZ=100)."""

TIMES = re.compile(r"iosched/(\w*_expire\w*|timeout_sync|target_latency|slice_\w+)$")
"""Files of schedulers that hold times, in ms, kept in jiffies."""

BUSY_TRIES, BUSY_SECONDS = 5, 0.05
"""EBUSY passes: the kernel gives it while the number of queues changes (block/elevator.c, 6.16)."""

STALLED, LOOKS = 0.05, 20
"""Seconds between looks at a queue with requests in flight, and after how many without one that
completes it is said not to drain."""


class DiskWriter(Writer):
    """Writes queues' files; disks side by side, as one may keep its writer for ever."""

    threads = 128
    timeout_reason = "the request queue is not draining; the change is still blocked in the kernel"

    def worker_key(self, setting: str) -> str:
        """The disk."""
        return planner.worker_key(setting)

    def took(self, change: Change, now: object) -> bool:
        """Times may come back one jiffy off; an old name may read as the new one's."""
        asked, found = str(change.after), str(now)
        if TIMES.search(change.setting) and found.isdigit() and asked.isdigit():
            return abs(int(found) - int(asked)) <= JIFFY
        return super().took(change, now)

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """A write that waits out a busy queue, and is not begun on one that does not drain."""
        if change.setting.endswith(f"/{planner.SCHEDULER}"):
            check_drains(fs, change)
        for _ in range(BUSY_TRIES):
            try:
                return super().write(fs, change, abandoned)
            except KernelFileError as error:
                if error.code != errno.EBUSY:
                    raise
            time.sleep(BUSY_SECONDS)
        return super().write(fs, change, abandoned)


def check_drains(fs: KernelFS, change: Change) -> None:
    """Raises KernelFileError for a queue with requests in flight of which none completes.

    A change of the scheduler waits in the kernel until the queue is empty, for ever if need be.
    """
    folder = change.path.rpartition("/queue/")[0]
    completed = -1
    for look in range(LOOKS + 1):
        in_flight = sum(map(int, (fs.read_optional(f"{folder}/inflight") or "").split()))
        done = _completed(fs.read_optional(f"{folder}/stat") or "")
        if in_flight == 0 or (look and done != completed):
            return
        completed = done
        time.sleep(STALLED)
    reason = f"{in_flight} requests in flight, and none completed in {STALLED * LOOKS:g} s"
    raise KernelFileError(change.path, reason, str(change.after))


def _completed(stat: str) -> int:
    """Requests completed, from Documentation/block/stat.rst: reads, writes, discards, flushes."""
    fields = [int(field) for field in stat.split()]
    return sum(fields[place] for place in (0, 4, 11, 15) if place < len(fields))
