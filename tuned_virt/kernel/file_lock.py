# SPDX-License-Identifier: GPL-2.0-or-later
"""flock(2) with a time limit, and who holds a lock that cannot be had.

A process that is stopped while it holds a lock may never give it back.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFileError, KernelFS

FIRST, LONGEST = 0.001, 0.05
"""Seconds between two attempts, at first and at last."""

UNKNOWN = 0
"""The number of a process that /proc/locks does not show here."""

_in_vain: dict[str, int] = {}  # who was waited for in vain, by the lock's path


def take(descriptor: int, path: str) -> None:
    """Lock a file for this descriptor alone.

    Raises OSError: TimeoutError names who holds it, after `timeouts.LOCK` seconds, or at once
    where that process was waited for before.
    """
    until, pause = time.monotonic() + timeouts.LOCK, FIRST
    while not _taken(descriptor):
        known = _in_vain.get(path)
        late = time.monotonic() >= until
        if late or known is not None:
            holder = _holder(descriptor)
            if late or holder == known:
                _in_vain[path] = holder
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"{_words(holder)} holds its lock and does not release it",
                    path,
                )
            del _in_vain[path]
        time.sleep(pause)
        pause = min(2 * pause, LONGEST)
    _in_vain.pop(path, None)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int:
    """Whose lock it is by /proc/locks (proc_locks(5))."""
    status = os.fstat(descriptor)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    try:
        lines = KernelFS().read("/proc/locks").splitlines()
    except KernelFileError:
        return UNKNOWN
    for fields in map(str.split, lines):
        if fields[1:2] == ["FLOCK"] and f"{device}:{status.st_ino}" in fields:
            return int(fields[4]) if fields[4].isdecimal() else UNKNOWN
    return UNKNOWN


def _words(pid: int) -> str:
    from tuned_virt.kernel import procfs  # most locks are free

    try:
        fields = procfs.status(KernelFS(), str(pid)) if pid else {}
    except KernelFileError:
        fields = {}
    if not fields:
        return "another process"
    stopped = ", which is stopped," if fields.get("State", "").startswith(("T", "t")) else ""
    return f"process {pid} ({fields.get('Name', '')}){stopped}"
