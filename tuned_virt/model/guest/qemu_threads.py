# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's threads as the kernel has them: which is which vCPU, and where each may run.

libvirt always gives QEMU `debug-threads=on`, so a thread's name says its role (QEMU's cpus.c and
iothread.c): "CPU 0/KVM" or "CPU 0/TCG" is a vCPU, "IO iothread1" an IOThread, all others, with the
main thread, are the emulator's. Guests cannot rename them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set

from tuned_virt.kernel import cpuset, procfs
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import qemu_process
from tuned_virt.model.pins import EMULATOR, Part, Pins, Target

PARTS = tuple(Part)
VCPU = re.compile(r"CPU (\d{1,5})/\w+")
IOTHREAD = re.compile(r"IO iothread(\d{1,6})")


PID_FILES = ("/run/libvirt/qemu",)
"""Where libvirt's QEMU driver notes each guest's process, for root alone to write
(qemuProcessLaunch, virPidFileBuildPath)."""

QemuThreads = Mapping[Target, "tuple[int, ...]"]
"""Thread numbers by what they run; the emulator's begin with the process's own."""

Affinity = Mapping[Target, Mapping[int, str]]
"""Where each thread may run, as a CPU set, by what it runs and its number."""


class ThreadFinder:
    """Finds guests' processes by UUID.

    It is the process that libvirt has written down, whatever program that is. Only where libvirt's
    files are not to be seen here do processes' names and arguments say it, which any user chooses;
    one that is known not to be QEMU is read once.
    """

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._others: set[int] = set()

    def find(self, guests: Mapping[str, str]) -> dict[str, int]:
        """UUID → process, of guests' names by UUID.

        A UUID that several processes claim, none of them by libvirt, is left out: one of them lies.
        """
        noted = ((uuid, self._noted(uuid, name)) for uuid, name in guests.items())
        known = {uuid: pid for uuid, pid in noted if pid is not None}
        wanted = guests.keys() - known.keys()
        if not wanted:
            return known
        pids = procfs.pids(self._fs)
        self._others &= pids
        found = self._look(wanted, pids - self._others)
        missing = wanted - found.keys()
        if missing:  # a number may have passed to another process
            found.update(self._look(missing, self._others & pids))
        return {**known, **{uuid: some[0] for uuid, some in found.items() if len(some) == 1}}

    def _noted(self, uuid: str, name: str) -> int | None:
        """The process that libvirt has written down, if that still runs this guest."""
        for folder in PID_FILES if "/" not in name else ():
            text = self._fs.read_permitted(f"{folder}/{name}.pid") or ""
            pid = int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None
            if pid is not None and qemu_process.claimed_uuid(self._fs, pid) == uuid:
                return pid
        return None

    def _look(self, wanted: Set[str], pids: set[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for pid in pids:
            guest = qemu_process.identify(self._fs, pid)
            if guest is None:
                self._others.add(pid)
            elif guest.uuid in wanted:
                found.setdefault(guest.uuid, []).append(pid)
        return found


def read(fs: KernelFS, pid: int) -> QemuThreads:
    """A process's threads; none for one that has gone. Raises KernelFileError.

    A thread whose name cannot be read is not the emulator's for that.
    """
    found: dict[Target, tuple[int, ...]] = {}
    numbers = map(int, fs.names(f"/proc/{pid}/task"))
    for thread in sorted(numbers, key=lambda one: (one != pid, one)):
        comm = fs.read_optional(f"/proc/{pid}/task/{thread}/comm")
        if comm is None:
            continue  # it has ended
        vcpu, iothread = VCPU.fullmatch(comm), IOTHREAD.fullmatch(comm)
        target = EMULATOR
        if vcpu:
            target = Target(Part.VCPU, int(vcpu[1]))
        elif iothread:
            target = Target(Part.IOTHREAD, int(iothread[1]))
        found[target] = (*found.get(target, ()), thread)
    return dict(sorted(found.items(), key=lambda one: (PARTS.index(one[0].part), one[0].number)))


def allowed(fs: KernelFS, pid: int, thread: int) -> str | None:
    """Where a thread may run, as its status says (Cpus_allowed_list); None for one that ended.

    Raises KernelFileError.
    """
    text = fs.read_optional(f"/proc/{pid}/task/{thread}/status") or ""
    return procfs.fields(text).get("Cpus_allowed_list")


def affinity(fs: KernelFS, pid: int, threads: QemuThreads | None = None) -> Affinity:
    """Where each of a guest's threads may run; those that ended meanwhile are left out.

    Raises KernelFileError.
    """
    return {
        target: {one: cpus for one in some if (cpus := allowed(fs, pid, one))}
        for target, some in (read(fs, pid) if threads is None else threads).items()
    }


def pins(now: Affinity) -> Pins:
    """The same by target: of several threads, the first's."""
    return Pins.of((target, next(iter(some.values()), "")) for target, some in now.items())


def elsewhere(now: Affinity, wanted: Pins) -> Iterator[str]:
    """Threads that are not where they are wanted, in words; those on the same CPUs together."""
    groups: dict[tuple[str, str], list[int]] = {}
    for target, some in now.items():
        for thread, cpus in some.items():
            if wanted.get(target, cpus) != cpus:
                kind = "emulator thread" if target == EMULATOR else target.part.value
                number = thread if target == EMULATOR else target.number
                groups.setdefault((kind, cpus), []).append(number)
    for (kind, cpus), numbers in groups.items():
        yield f"{kind} {cpuset.text(numbers)} on {cpus}"


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


def last_cpu(fs: KernelFS, pid: int, thread: int) -> int | None:
    """The CPU on which a thread ran last (proc(5), field 39); None for one that has ended.

    Raises KernelFileError.
    """
    text = fs.read_optional(f"/proc/{pid}/task/{thread}/stat")
    return int(procfs.stat_fields(text)[36]) if text else None


def run_delay(fs: KernelFS, pid: int, thread: int) -> int | None:
    """Nanoseconds that a thread has waited for a CPU (Documentation/scheduler/sched-stats.rst).

    None where that is not counted: such a kernel has no file, or "0 0 0" in it of all threads
    (fs/proc/base.c, proc_pid_schedstat). Raises KernelFileError.
    """
    fields = (fs.read_optional(f"/proc/{pid}/task/{thread}/schedstat") or "").split()
    if len(fields) < 3 or not all(map(str.isdecimal, fields)) or fields[2] == "0":
        return None
    return int(fields[1])
