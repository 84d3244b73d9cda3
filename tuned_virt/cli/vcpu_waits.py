# SPDX-License-Identifier: GPL-2.0-or-later
"""How long guests' vCPUs have waited for a CPU: the kernel's counts at two moments, compared."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.procfs import stat_fields
from tuned_virt.model.guest import qemu_threads
from tuned_virt.model.guest.qemu_threads import QemuThreads
from tuned_virt.model.pins import Part

NOT_COUNTED = "this kernel does not count it (CONFIG_SCHED_INFO)"

ThreadRun = tuple[int, str]
"""A thread, and when it was started: its number may pass to another."""


@dataclass(frozen=True)
class VcpuWaits:
    """Nanoseconds by process and thread at a moment of the monotonic clock; `errors`: why, by
    process, they cannot be told."""

    when: float
    waited: Mapping[int, Mapping[ThreadRun, int]] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)

    def since(
        self, before: VcpuWaits, pid: int, threads: QemuThreads
    ) -> tuple[dict[int, int], str]:
        """Nanoseconds by vCPU, of those that ran at both moments; and why they are not known."""
        numbers = dict(vcpu_threads(threads))
        earlier = before.waited.get(pid, {})
        return {
            numbers[run[0]]: waited - earlier[run]
            for run, waited in self.waited.get(pid, {}).items()
            if run[0] in numbers and run in earlier
        }, self.errors.get(pid, "")


def vcpu_threads(threads: QemuThreads) -> Iterator[tuple[int, int]]:
    """Each thread that is a vCPU's, with the vCPU's number."""
    for target, some in threads.items():
        if target.part is Part.VCPU:
            yield from ((thread, target.number) for thread in some)


def read(fs: KernelFS, guests: Iterable[tuple[int, QemuThreads]]) -> VcpuWaits:
    """Of guests' vCPUs, by process and threads; no folder is listed."""
    when = time.monotonic()
    waited: dict[int, dict[ThreadRun, int]] = {}
    errors: dict[int, str] = {}
    for pid, threads in guests:
        try:
            found = dict(_waited(fs, pid, threads))
        except KernelFileError as error:
            errors[pid] = str(error)
            continue
        waited[pid] = {run: ns for run, ns in found.items() if ns is not None}
        if len(waited[pid]) < len(found):
            errors[pid] = NOT_COUNTED
    return VcpuWaits(when, waited, errors)


def _waited(fs: KernelFS, pid: int, threads: QemuThreads) -> Iterator[tuple[ThreadRun, int | None]]:
    """Of each vCPU that has not ended; None where it is not counted."""
    for thread, _ in vcpu_threads(threads):
        stat = fs.read_optional(f"/proc/{pid}/task/{thread}/stat")
        if stat:
            yield (thread, stat_fields(stat)[19]), qemu_threads.run_delay(fs, pid, thread)
