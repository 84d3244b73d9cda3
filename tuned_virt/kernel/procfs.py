# SPDX-License-Identifier: GPL-2.0-or-later
"""What /proc says of processes (proc(5)): each text has one reader."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Container, Mapping

from tuned_virt.kernel.files import KernelFS

HERE = KernelFS()


def pids(fs: KernelFS) -> set[int]:
    """The processes there are. Raises KernelFileError."""
    return {int(name) for name in fs.names("/proc") if name.isdigit()}


FIRST_USER = 1000
"""Numbers of people's accounts begin here; below are root's and services' (login.defs, UID_MIN)."""


def by_name(fs: KernelFS, wanted: Container[str]) -> dict[str, list[int]]:
    """Services' processes by name (comm, at most 15 characters), of those wanted that run.

    Any user may give a process any name, so people's own count for nothing. Raises KernelFileError.
    """
    here = type(fs) is KernelFS and fs.root == "/"
    names = MACHINE.read() if here else ProcessNames(fs).read()
    found: dict[str, list[int]] = {}
    for pid, name in names.items():
        if name in wanted and _is_services(fs, pid):
            found.setdefault(name, []).append(pid)
    return found


class ProcessNames:
    """All processes' names. One reading serves the plugins that ask one after the other while a
    profile is applied: a host has thousands of processes."""

    HOLDS = 0.1
    """Seconds for which a reading is used."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._found: tuple[float, Mapping[int, str]] = (float("-inf"), {})

    def read(self) -> Mapping[int, str]:
        """By number, in its order. Raises KernelFileError."""
        when, names = self._found
        if time.monotonic() - when > self.HOLDS:
            texts = {pid: self._fs.read_permitted(f"/proc/{pid}/comm") for pid in pids(self._fs)}
            names = {pid: text for pid, text in sorted(texts.items()) if text is not None}
            self._found = (time.monotonic(), names)
        return names


MACHINE = ProcessNames(HERE)


def _is_services(fs: KernelFS, pid: int) -> bool:
    """Whether root or a service runs it; also where its status does not say."""
    real = status(fs, str(pid)).get("Uid", "").split()[:1]
    return not (real and real[0].isdecimal()) or int(real[0]) < FIRST_USER


def stat_fields(text: str) -> list[str]:
    """A stat file's fields from the third on: the name before them may hold anything."""
    return text.rpartition(")")[2].split()


ENDED = ("Z", "X")
"""States of a process that runs no more (proc_pid_stat(5))."""


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot (field 22); None if it has ended.

    One whose parent has not yet been told (state Z) has ended: systemd starts a service's
    ExecStopPost= before it collects the process that was killed. While other threads still run
    (field 20) it has not. A process that cannot be looked at has not gone: raises KernelFileError.
    """
    text = HERE.read_optional(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = stat_fields(text)
    ended = fields[0] in ENDED and int(fields[17]) <= 1
    return None if ended else int(fields[19])


def parent(pid: int) -> int:
    """A process's parent (field 4); 0 if it is gone or has none here. Raises KernelFileError."""
    text = HERE.read_optional(f"/proc/{pid}/stat")
    return int(stat_fields(text)[1]) if text else 0


def ticks() -> int:
    """Clock ticks a second."""
    return os.sysconf("SC_CLK_TCK")


def status(fs: KernelFS, process: str) -> Mapping[str, str]:
    """The fields of a status file; none of what has ended.

    `process` is a number, or a thread's "PID/task/TID". Raises KernelFileError.
    """
    return fields(fs.read_permitted(f"/proc/{process}/status") or "")


def fields(text: str) -> Mapping[str, str]:
    """The fields of a status file's text."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def kib(fields: Mapping[str, str], name: str) -> int | None:
    """A size in a status file; None where there is none."""
    found = re.fullmatch(r"(\d+) kB", fields.get(name, ""))
    return int(found[1]) if found else None


def unescaped(text: str) -> str:
    """A field of a table of mounts: white space in it is written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
