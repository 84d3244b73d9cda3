# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's threads as the kernel has them: which is which vCPU, and where each may run.

libvirt always gives QEMU `debug-threads=on`, so a thread's name says its role (QEMU's cpus.c and
iothread.c): "CPU 0/KVM" or "CPU 0/TCG" is a vCPU, "IO iothread1" an IOThread, all others, with the
main thread, are the emulator's. Guests cannot rename them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tuned_virt.kernel import cpuset, procfs
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import qemu_process

VCPU = re.compile(r"CPU (\d{1,5})/\w+")
IOTHREAD = re.compile(r"IO iothread(\d{1,6})")


@dataclass(frozen=True)
class QemuThreads:
    """Thread numbers by role; the emulator's begin with the main thread's, the process's own."""

    pid: int
    vcpus: Mapping[int, int] = field(default_factory=dict)
    iothreads: Mapping[int, int] = field(default_factory=dict)
    emulator: tuple[int, ...] = ()


@dataclass(frozen=True)
class QemuAffinity:
    """Where threads may run, as cpusets: by vCPU, by IOThread, and by emulator thread's number."""

    vcpus: Mapping[int, str] = field(default_factory=dict)
    iothreads: Mapping[int, str] = field(default_factory=dict)
    emulator: Mapping[int, str] = field(default_factory=dict)


class ThreadFinder:
    """Finds guests' processes by UUID; a process that is known not to be QEMU is read once."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._others: set[int] = set()

    def find(self, uuids: Iterable[str]) -> dict[str, int]:
        """UUID → process. A UUID that two processes claim is left out: one of them lies."""
        wanted = set(uuids)
        if not wanted:
            return {}
        pids = procfs.pids(self._fs)
        self._others &= pids
        found = self._look(wanted, pids - self._others)
        missing = wanted - found.keys()
        if missing:  # a number may have passed to another process
            found.update(self._look(missing, self._others & pids))
        return {uuid: pids[0] for uuid, pids in found.items() if len(pids) == 1}

    def _look(self, wanted: set[str], pids: set[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for pid in pids:
            guest = qemu_process.identify(self._fs, pid)
            if guest is None:
                self._others.add(pid)
            elif guest.uuid in wanted:
                found.setdefault(guest.uuid, []).append(pid)
        return found


def read(fs: KernelFS, pid: int) -> QemuThreads:
    """A process's threads by role; none for one that has gone."""
    vcpus, iothreads, emulator = {}, {}, [pid]
    for name in fs.names(f"/proc/{pid}/task"):
        thread = int(name)
        comm = fs.read_permitted(f"/proc/{pid}/task/{name}/comm") or ""
        vcpu, iothread = VCPU.fullmatch(comm), IOTHREAD.fullmatch(comm)
        if vcpu:
            vcpus[int(vcpu[1])] = thread
        elif iothread:
            iothreads[int(iothread[1])] = thread
        elif thread != pid:
            emulator.append(thread)
    return QemuThreads(
        pid, dict(sorted(vcpus.items())), dict(sorted(iothreads.items())), (*emulator,)
    )


def allowed(fs: KernelFS, pid: int, thread: int) -> str | None:
    """Where a thread may run, as its status says (Cpus_allowed_list); None for one that ended."""
    return procfs.status(fs, f"{pid}/task/{thread}").get("Cpus_allowed_list")


def affinity(fs: KernelFS, threads: QemuThreads) -> QemuAffinity:
    """Where each of a guest's threads may run; those that ended meanwhile are left out."""

    def told(numbers: Mapping[int, int]) -> dict[int, str]:
        places = {key: allowed(fs, threads.pid, thread) for key, thread in numbers.items()}
        return {key: cpus for key, cpus in places.items() if cpus}

    emulator = {thread: thread for thread in threads.emulator}
    return QemuAffinity(told(threads.vcpus), told(threads.iothreads), told(emulator))


def confine(threads: Iterable[int], cpus: str) -> list[int]:
    """Let threads run on a cpuset alone (sched_setaffinity(2)); returns those that refused."""
    refused = []
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cpuset.parse(cpus))
        except ProcessLookupError:
            continue
        except OSError:
            refused.append(thread)
    return refused


def run_delay(fs: KernelFS, pid: int, thread: int) -> int | None:
    """Nanoseconds that a thread has waited for a CPU (Documentation/scheduler/sched-stats.rst)."""
    fields = (fs.read_permitted(f"/proc/{pid}/task/{thread}/schedstat") or "").split()
    with contextlib.suppress(IndexError, ValueError):
        return int(fields[1])
    return None
