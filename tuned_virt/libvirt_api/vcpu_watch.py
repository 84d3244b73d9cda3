# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that are plugged in and out, which libvirt tells by no event: QEMU's threads tell.

libvirt sends nothing for `virsh setvcpus` (qemuDomainSetVcpusLive). A process's folder of threads
has a link for each, so one stat(2) says whether any has come or gone; only then are names read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model.guest import qemu_threads
from tuned_virt.model.pins import Part

PERIOD = 0.5
"""Seconds between looks."""


@dataclass(frozen=True)
class _Threads:
    """A guest's process as it was last looked at: how many threads, and which vCPUs."""

    pid: int
    count: int
    vcpus: frozenset[int]


class VcpuWatch:
    """Looks at the guests that may gain or lose vCPUs."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._seen: dict[str, _Threads] = {}
        self._again: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self._seen)

    def follow(self, guests: Mapping[str, int]) -> None:
        """Watch these guests from now on: their processes by UUID."""
        for uuid in self._seen.keys() - guests.keys():
            del self._seen[uuid]
        for uuid, pid in guests.items():
            known = self._seen.get(uuid)
            if known is None or known.pid != pid:
                self._seen[uuid] = self._look(pid)

    def changed(self) -> frozenset[str]:
        """UUIDs of guests whose vCPUs have changed since the last look, and those of that look.

        Again, as libvirt's XML may tell of a vCPU a moment later than its thread is there.
        """
        found = frozenset(self._changes())
        before, self._again = self._again, found
        return found | before & self._seen.keys()

    def _changes(self) -> Iterator[str]:
        for uuid, known in self._seen.items():
            if self._count(known.pid) == known.count:
                continue
            self._seen[uuid] = now = self._look(known.pid)
            if now.vcpus != known.vcpus:
                yield uuid

    def _count(self, pid: int) -> int:
        try:
            return self._fs.folders(f"/proc/{pid}/task")
        except (KernelFileError, OSError):
            return 0

    def _look(self, pid: int) -> _Threads:
        count = self._count(pid)
        try:
            threads = qemu_threads.read(self._fs, pid)
        except KernelFileError:
            return _Threads(pid, count, frozenset())
        vcpus = (one.number for one in threads if one.part is Part.VCPU)
        return _Threads(pid, count, frozenset(vcpus))
