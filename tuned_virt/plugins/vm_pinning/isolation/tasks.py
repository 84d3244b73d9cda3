# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may run on CPUs that are dedicated: counted and named by kind, for verify."""

from __future__ import annotations

import functools
import time
from collections.abc import Container, Iterator
from enum import Enum

from tuned_virt.core.engine import Finding, Result
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import cpuset, procfs
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import printable, qemu_process
from tuned_virt.plugins.vm_pinning.isolation.planner import UNITS, Cpus

KERNEL_THREAD, BOUND = 0x00200000, 0x04000000
"""PF_KTHREAD and PF_NO_SETAFFINITY in the kernel's include/linux/sched.h."""

SECONDS = 0.5
"""Verify reads tasks for so long; those whose turn does not come are said."""

NAMED = 5
"""Of one kind, so many are named."""


class TaskKind(Enum):
    """Whose a task is."""

    HOST = "host tasks"
    GUEST = "threads of other guests"
    OTHER = "tasks outside system.slice, user.slice and init.scope"
    KERNEL = "kernel threads"
    BOUND = "kernel threads that belong to one CPU each and cannot be moved"


@dataclass(frozen=True)
class Task:
    """A thread: its kind, and the name of its program or guest."""

    kind: TaskKind
    name: str


class TaskReader:
    """Finds the tasks that may run on some CPUs."""

    def __init__(self, fs: KernelFS, cpus: Cpus, ours: Container[int]) -> None:
        self._fs = fs
        self._ours = ours
        self._until = time.monotonic() + SECONDS
        self.complete = True
        self.overlaps = functools.lru_cache(maxsize=None)(lambda text: self._on(cpus, text))

    @staticmethod
    def _on(cpus: Cpus, text: str) -> bool:
        return bool(cpuset.parse(text) & cpus)

    def tasks(self) -> Iterator[Task]:
        """The tasks, but those of processes that are ours. Raises KernelFileError."""
        for pid in sorted(procfs.pids(self._fs)):
            if time.monotonic() > self._until:
                self.complete = False
                return
            if pid not in self._ours:
                yield from [self._task(pid)] * self._count(pid)

    def _count(self, pid: int) -> int:
        numbers = self._fs.names(f"/proc/{pid}/task")
        found = (procfs.status(self._fs, f"{pid}/task/{one}") for one in numbers)
        return sum(self.overlaps(fields.get("Cpus_allowed_list", "")) for fields in found)

    def _task(self, pid: int) -> Task:
        name = self._fs.read_permitted(f"/proc/{pid}/comm") or ""
        stat = procfs.stat_fields(self._fs.read_permitted(f"/proc/{pid}/stat") or "")
        flags = int(stat[6]) if len(stat) > 6 else 0
        if flags & KERNEL_THREAD:
            return Task(TaskKind.BOUND if flags & BOUND else TaskKind.KERNEL, name)
        guest = qemu_process.identify(self._fs, pid)
        if guest is not None:
            return Task(TaskKind.GUEST, guest.name or name)
        return Task(TaskKind.HOST if self._is_hosts(pid) else TaskKind.OTHER, name)

    def _is_hosts(self, pid: int) -> bool:
        groups = self._fs.read_permitted(f"/proc/{pid}/cgroup") or ""
        own = next((line[3:] for line in groups.splitlines() if line.startswith("0::")), "")
        return own.strip("/").partition("/")[0] in UNITS


def findings(fs: KernelFS, cpus: Cpus, ours: Container[int], plugin: str) -> Iterator[Finding]:
    """A line for each kind of tasks that may run there; only the host's own are a failure."""
    reader = TaskReader(fs, cpus, ours)
    by_kind: dict[TaskKind, list[str]] = {kind: [] for kind in TaskKind}
    for task in reader.tasks():
        by_kind[task.kind].append(task.name)
    where = f"may run on CPUs {cpuset.text(cpus)}"
    for kind, names in by_kind.items():
        if names:
            result = Result.FAILED if kind is TaskKind.HOST else Result.NOTE
            text = f"{plugin}: {len(names)} {kind.value} {where}: {_some(names)}"
            yield Finding(result, text)
    if not any(by_kind.values()) and reader.complete:
        yield Finding(Result.PASSED, f"{plugin}: no other task {where}")
    if not reader.complete:
        yield Finding(Result.NOTE, f"{plugin}: not all tasks were read within {SECONDS:g} s")


def _some(names: list[str]) -> str:
    different = [printable(name) for name in dict.fromkeys(names)]
    more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
    return ", ".join(different[:NAMED]) + more
