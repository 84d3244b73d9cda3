# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a sample: KSM's counters, memory, ksmd's CPU time, and the guests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from tuned_virt.core.guest_source import GuestSource
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.running_guests import RunningGuest
from tuned_virt.model import topology
from tuned_virt.model.guest import printable, qemu_process
from tuned_virt.plugins.ksm.decision import CONTROLLED, Sample
from tuned_virt.plugins.ksm.state import FOLDER

COUNT_AGAIN = 10.0
"""Seconds for which a count of the guests holds, unless an event says otherwise."""

KNOWN = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")


class GuestProcess(Protocol):
    """A guest's process: what it says of itself, a label for people, and the KiB that it has."""

    guest: qemu_process.QemuProcess
    label: str
    resident: int


class Sampler:
    """Reads samples; what it knows of processes it keeps from one to the next."""

    def __init__(self, fs: KernelFS, libvirt: GuestSource[RunningGuest]) -> None:
        self._fs = fs
        self._libvirt = libvirt
        self._processes = qemu_process.QemuProcesses(fs)
        self._ksmd: str | None = None
        self._counted = float("-inf")
        self._hidden: Mapping[str, RunningGuest] = {}
        self._guests = Counted(frozenset(), 0, 0, 0)

    def start(self, changed: Callable[[str], None]) -> None:
        """Begin to follow libvirt's guests."""
        self._libvirt.start(changed)

    def stop(self) -> None:
        """End it, at once."""
        self._libvirt.stop()
        self._processes.close()

    def sample(self, now: float, changed: bool = False) -> Sample:
        """The machine at `now`, in seconds of a steady clock; `changed` says the guests have."""
        if changed or now - self._counted >= COUNT_AGAIN:
            self._count(now)
        counted = self._guests
        memory = topology.meminfo(self._fs)
        number = self._fs.read_number
        scanned = self._fs.read_optional(f"{FOLDER}/pages_scanned")
        return Sample(
            now=now,
            total=memory.get("MemTotal", 0),
            available=memory.get("MemAvailable", 0),
            settings={name: self._fs.read(f"{FOLDER}/{name}") for name in CONTROLLED},
            cpus=os.cpu_count() or 1,
            free=sum(memory.get(name, 0) for name in ("MemFree", "Buffers", "Cached")),
            committed=counted.committed,
            unmergeable=counted.unmergeable + pools(self._fs, memory),
            reclaimable=arc(self._fs),
            resident=counted.resident,
            guests=counted.labels,
            pressure=self._pressure(),
            cpu=self._ksmd_seconds(),
            scanned=None if scanned is None else int(scanned),
            full_scans=number(f"{FOLDER}/full_scans"),
            merged=number(f"{FOLDER}/pages_sharing") + number(f"{FOLDER}/ksm_zero_pages"),
            known=sum(number(f"{FOLDER}/{name}") for name in KNOWN),
        )

    def _count(self, now: float) -> None:
        self._counted = now
        processes = self._processes.look(now)
        libvirt = self._libvirt.guests
        if libvirt is None:
            self._guests = count(processes, self._hidden)
            return
        seen = {process.guest.uuid for process in processes}
        self._hidden = {uuid: guest for uuid, guest in libvirt.items() if uuid not in seen}
        self._guests = count(processes, libvirt)

    def _pressure(self) -> float | None:
        text = self._fs.read_optional("/proc/pressure/memory") or ""
        found = re.match(r"some avg10=(\d+\.\d+)", text)
        return float(found[1]) if found else None

    def _ksmd_seconds(self) -> float | None:
        if self._ksmd is None:
            self._ksmd = ksmd(self._fs)
        return cpu_seconds(self._fs, self._ksmd) if self._ksmd else None


@dataclass(frozen=True)
class Counted:
    """Guests: labels of those whose memory can be merged, and in KiB what those may come to use,
    what others may that are not in pools of huge pages, and what all have now."""

    labels: frozenset[str]
    committed: int
    unmergeable: int
    resident: int


def count(processes: Collection[GuestProcess], libvirt: Mapping[str, RunningGuest]) -> Counted:
    """The guests, each with what libvirt lets it use, or with what its process has where libvirt
    does not know it; one of libvirt's whose process is not to be seen has what it may use.
    """
    hidden = libvirt.keys() - {process.guest.uuid for process in processes}
    unknown = [process for process in processes if process.guest.uuid not in libvirt]
    apart = {uuid for uuid, guest in libvirt.items() if not guest.mergeable}
    labels = {
        process.label
        for process in processes
        if process.guest.mergeable and process.guest.uuid not in apart
    }
    labels |= {f"{printable(libvirt[uuid].name)} ({uuid})" for uuid in hidden - apart}
    return Counted(
        frozenset(labels),
        sum(guest.memory for guest in libvirt.values() if guest.mergeable)
        + sum(process.resident for process in unknown if process.guest.mergeable),
        sum(libvirt[uuid].memory for uuid in apart if not libvirt[uuid].huge)
        + sum(process.resident for process in unknown if not process.guest.mergeable),
        sum(process.resident for process in processes)
        + sum(libvirt[uuid].memory for uuid in hidden),
    )


def pools(fs: KernelFS, memory: Mapping[str, int]) -> int:
    """KiB in pools of huge pages of all sizes, also of a kernel before 4.20, which has no sum."""
    if "Hugetlb" in memory:
        return memory["Hugetlb"]
    folders = fs.glob("/sys/kernel/mm/hugepages/hugepages-*kB")
    sizes = {folder: int(re.sub(r"\D", "", folder.rpartition("-")[2])) for folder in folders}
    return sum(fs.read_number(f"{folder}/nr_hugepages") * kib for folder, kib in sizes.items())


def arc(fs: KernelFS) -> int:
    """KiB that ZFS's cache gives back when memory is asked for: its size over its minimum.

    /proc/meminfo does not count it as available (OpenZFS, zfs(4), zfs_arc_min).
    """
    text = fs.read_permitted("/proc/spl/kstat/zfs/arcstats") or ""
    found = dict(re.findall(r"^(\w+)\s+\d+\s+(\d+)$", text, re.MULTILINE))
    return max(int(found.get("size", 0)) - int(found.get("c_min", 0)), 0) // 1024


def ksmd(fs: KernelFS) -> str:
    """/proc's folder of the kernel thread ksmd, "" where it is not to be seen."""
    for pid in procfs.by_name(fs, ("ksmd",)).get("ksmd", []):
        is_kernel_thread = fs.link(f"/proc/{pid}/exe") is None
        if is_kernel_thread and fs.read_permitted(f"/proc/{pid}/cmdline") == "":
            return f"/proc/{pid}"
    return ""


def cpu_seconds(fs: KernelFS, folder: str) -> float | None:
    """CPU time of a thread: ns in schedstat, else ticks in stat (proc(5)); None if it is gone."""
    nanoseconds = (fs.read_permitted(f"{folder}/schedstat") or "").split()
    if nanoseconds and nanoseconds[0] != "0":
        return int(nanoseconds[0]) / 1e9
    stat = procfs.stat_fields(fs.read_permitted(f"{folder}/stat") or "")
    if len(stat) < 13:
        return None
    return (int(stat[11]) + int(stat[12])) / procfs.ticks()
