# SPDX-License-Identifier: GPL-2.0-or-later
"""What /proc says of processes (proc(5)): each text has one reader."""

from __future__ import annotations

import errno
import os
from pathlib import Path

GONE = (errno.ENOENT, errno.ESRCH)
"""What opening or reading a process's file gives once the process has ended."""


def stat_fields(text: str) -> list[str]:
    """A stat file's fields from the third on: the name before them may hold anything."""
    return text.rpartition(")")[2].split()


def _stat(pid: int) -> list[str] | None:
    try:
        return stat_fields(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot (field 22); None if gone. Raises OSError.

    A process that cannot be looked at is not one that has gone.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def parent(pid: int) -> int:
    """A process's parent (field 4); 0 if it is gone or has none here. Raises OSError."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def ticks() -> int:
    """Clock ticks a second."""
    return os.sysconf("SC_CLK_TCK")
