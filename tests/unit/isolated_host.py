# SPDX-License-Identifier: GPL-2.0-or-later
"""A host whose tasks and interrupts can be kept off CPUs: files below a root, and a systemd."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tuned_virt.kernel import cpuset, procfs, systemd
from tuned_virt.kernel.commands import ToolError
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.irqbalance import Irqbalance

DROP_INS = "run/systemd/system.control"
UNITS = ("system.slice", "user.slice", "init.scope")


class FakeIrqbalance(Irqbalance):
    """Takes what it is told at once."""

    def __init__(self, banned: str | None = "") -> None:
        super().__init__("/nonexistent")
        self.now = banned
        self.told: list[str] = []

    def banned(self) -> frozenset[int] | None:
        return None if self.now is None else cpuset.parse(self.now)

    def ban(self, cpus: str) -> None:
        self.told.append(cpus)
        self.now = cpus


class IsolatedHost(KernelFS):
    """Eight CPUs, three interrupts (26 is the kernel's to place), systemd with control groups 2."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(root)
        self.folder = root
        self.units = dict.fromkeys(UNITS, "")
        self.calls: list[tuple[str, ...]] = []
        self.refuses = ""
        self.takes_empty_lists = True
        self.put("run/systemd/system/.there", "")
        self.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory")
        self.put("sys/devices/system/cpu/online", "0-7")
        self.put("sys/devices/system/cpu/possible", "0-15")
        self.put("sys/devices/virtual/workqueue/cpumask", "ff")
        self.put("proc/irq/default_smp_affinity", "ff")
        for number, cpus in {24: "0-7", 25: "5", 26: "4"}.items():
            self.put(f"proc/irq/{number}/smp_affinity_list", cpus)
        for unit in UNITS:
            self.put(f"sys/fs/cgroup/{unit}/cpuset.cpus", "")
        self.task(1, "systemd", "0-7", "/init.scope")
        patch.setattr(systemd, "systemctl", self._systemctl)

    def put(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def text(self, path: str) -> str:
        return (self.folder / path).read_text().strip()

    def task(self, pid: int, name: str, cpus: str, group: str, flags: int = 0) -> None:
        """A process with one thread."""
        status = f"Name:\t{name}\nUid:\t0\t0\t0\t0\nCpus_allowed_list:\t{cpus}"
        for folder in (f"proc/{pid}", f"proc/{pid}/task/{pid}"):
            self.put(f"{folder}/status", status)
            self.put(f"{folder}/comm", name)
        self.put(f"proc/{pid}/stat", f"{pid} ({name}) S 1 1 1 0 -1 {flags} 0")
        self.put(f"proc/{pid}/cgroup", f"0::{group}")

    def write(self, path: str, value: str) -> None:
        if path.startswith("/proc/irq/26"):
            raise KernelFileError(path, os.strerror(errno.EIO), value, errno.EIO)
        if path.endswith("/cpuset.cpus") and not (value.strip() or self.takes_empty_lists):
            raise KernelFileError(path, os.strerror(errno.ENOSPC), value, errno.ENOSPC)
        super().write(path, value)

    def _systemctl(self, *words: str, seconds: float = 0) -> str:
        self.calls.append(words)
        if self.refuses:
            raise ToolError(self.refuses)
        if words[0] == "show":
            shown = (f"Id={one}\nAllowedCPUs={self._spaced(one)}" for one in words[2:])
            return "\n\n".join(shown)
        unit, (_, cpus) = words[3], words[4].split("=")
        self.units[unit] = cpus
        folder = "run/systemd/transient" if unit == "init.scope" else DROP_INS
        self.put(f"{folder}/{unit}.d/50-AllowedCPUs.conf", f"AllowedCPUs=\nAllowedCPUs={cpus}")
        if cpus:  # else systemd leaves the group as it is: its issue 43846
            self.put(f"sys/fs/cgroup/{unit}/cpuset.cpus", cpus)
        return ""

    def _spaced(self, unit: str) -> str:
        return self.units[unit].replace(",", " ")

    def everything(self) -> dict[str, str]:
        """All files, and what systemd has."""
        files = (file for file in self.folder.rglob("*") if file.is_file())
        found = {str(one.relative_to(self.folder)): one.read_text().strip() for one in files}
        return {**found, **self.units}


def threads_follow(host: IsolatedHost, patch: pytest.MonkeyPatch) -> None:
    """sched_setaffinity(2) changes the files of a host's tasks."""

    def set_affinity(thread: int, cpus: frozenset[int]) -> None:
        [folder] = host.folder.glob(f"proc/*/task/{thread}")
        status = folder.relative_to(host.folder) / "status"
        host.put(str(status), f"Cpus_allowed_list:\t{cpuset.text(cpus)}")

    patch.setattr(os, "sched_setaffinity", set_affinity)
    patch.setattr(procfs, "start_time", lambda pid: 20 if pid < 100 else 1)
