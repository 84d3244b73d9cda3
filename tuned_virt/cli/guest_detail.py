# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest in full, for `tuned-virt guests NAME`: its threads, memory, neighbours and disks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from tuned_virt.cli import disks, guest_rows, ksm_table
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.guest_rows import GuestRow, SeenGuest
from tuned_virt.cli.vcpu_waits import VcpuWaits
from tuned_virt.frozen_dataclasses import asdict, dataclass
from tuned_virt.kernel import cgroups, cpuset, procfs
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model.guest import printable, qemu_threads
from tuned_virt.model.pins import EMULATOR, Part

NEAR = 5
"""So many names are suggested for one that no guest has."""

KSM_UNTOLD = "this kernel does not tell (ksm_stat, since Linux 6.1)"
NO_SWAP = "this kernel does not tell (VmSwap)"


@dataclass(frozen=True)
class ThreadRow:
    """A thread: where it may run, where it ran last, and of a vCPU its delay."""

    what: str
    thread: int
    cpus: str
    last_cpu: int | None
    delay_percent: float | None


@dataclass(frozen=True)
class CpuNeighbour:
    """Another guest whose vCPUs may run on the same CPUs."""

    guest: str
    uuid: str
    pid: int
    vcpus: int
    cpus: str


def chosen(guests: Sequence[SeenGuest], name: str) -> SeenGuest:
    """The guest of a name, a UUID or a process. Raises CouldNot, with names that are near."""
    found = [one for one in guests if one.name == name]
    found = found or [one for one in guests if name in (one.uuid, str(one.pid))]
    if len(found) > 1:
        numbers = " or ".join(map(str, sorted(one.pid for one in found)))
        text = f"{len(found)} guests are named '{printable(name)}': give its process, {numbers}"
        raise CouldNot(text)
    if found:
        return found[0]
    names = sorted({one.name for one in guests})
    if not names:
        raise CouldNot(f"no running guest is named '{printable(name)}': no guest is running")
    near = nearest(name, names)
    hint = f"did you mean {', '.join(near)}?" if near else "tuned-virt guests lists all"
    raise CouldNot(f"no running guest is named '{printable(name)}': {hint}")


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Names like one, and those that contain it."""
    from difflib import get_close_matches  # takes time to import

    alike = {one.lower(): one for one in names}
    close = [alike[one] for one in get_close_matches(name.lower(), alike, NEAR)]
    within = [one for one in names if name and name.lower() in one.lower()]
    return sorted({*close, *within}, key=lambda one: (one not in close, one))[:NEAR]


def gather(
    fs: KernelFS, seen: SeenGuest, others: Iterable[SeenGuest], before: VcpuWaits, now: VcpuWaits
) -> tuple[GuestRow, dict[str, Any]]:
    """Its row, and all else of it but disks as JSON has it. Raises CouldNot where it has ended."""
    rows = guest_rows.rows(fs, [seen], before, now)
    if not rows:
        raise CouldNot(f"guest {seen.name} has ended")
    pressure, pressure_error = cgroups.pressures(fs, seen.pid)
    numbers = [thread for some in seen.threads.values() for thread in some]
    throttling, throttling_error = cgroups.throttling(fs, seen.pid, numbers)
    return rows[0], {
        "threads": list(map(asdict, _threads(fs, seen, before, now))),
        "shares_cpus": list(map(asdict, _neighbours(fs, rows[0], seen, others))),
        **_swap(fs, seen.pid),
        **_ksm(fs, seen.pid),
        "cgroup": cgroups.own_path(fs, seen.pid),
        "pressure": list(map(asdict, pressure)),
        "pressure_error": pressure_error,
        "throttling": list(map(asdict, throttling)),
        "throttling_error": throttling_error,
    }


def _threads(
    fs: KernelFS, seen: SeenGuest, before: VcpuWaits, now: VcpuWaits
) -> Iterable[ThreadRow]:
    affinity, _ = guest_rows.affinity_of(fs, seen)
    waited, _ = now.since(before, seen.pid, seen.threads)
    for target, some in affinity.items():
        for thread, cpus in some.items():
            wait = waited.get(target.number) if target.part is Part.VCPU else None
            delay = None if wait is None else guest_rows.percent(wait, now.when - before.when)
            what = "emulator" if target == EMULATOR else str(target)
            yield ThreadRow(what, thread, cpus, _last_cpu(fs, seen.pid, thread), delay)


def _last_cpu(fs: KernelFS, pid: int, thread: int) -> int | None:
    try:
        return qemu_threads.last_cpu(fs, pid, thread)
    except KernelFileError:
        return None


def _neighbours(
    fs: KernelFS, row: GuestRow, seen: SeenGuest, others: Iterable[SeenGuest]
) -> list[CpuNeighbour]:
    """Guests with vCPUs that may run where this one's may; who shares most CPUs is first."""
    own = frozenset[int]().union(*map(cpuset.parse, row.vcpus.values()))
    found = []
    for other in others:
        if other.pid == seen.pid:
            continue
        affinity, _ = guest_rows.affinity_of(fs, other)
        vcpus = qemu_threads.pins(affinity).vcpus.values()
        here = [common for cpus in vcpus if (common := cpuset.parse(cpus) & own)]
        if here:
            text = cpuset.text(frozenset[int]().union(*here))
            found.append(CpuNeighbour(other.name, other.uuid, other.pid, len(here), text))
    return sorted(found, key=lambda one: (-cpuset.size(one.cpus), one.guest, one.pid))


def _swap(fs: KernelFS, pid: int) -> dict[str, Any]:
    try:
        fields = procfs.fields(fs.read_optional(f"/proc/{pid}/status") or "")
    except KernelFileError as error:
        return {"swap_mib": None, "swap_error": str(error)}
    kib = procfs.kib(fields, "VmSwap")
    return {
        "swap_mib": None if kib is None else round(kib / 1024, 1),
        "swap_error": NO_SWAP if kib is None else "",
    }


def _ksm(fs: KernelFS, pid: int) -> dict[str, Any]:
    mergeable = merged = profit = None
    try:
        mergeable, merged, profit = ksm_table.sizes_of(pid, fs.read_optional)
        error = KSM_UNTOLD if merged is None else ""
    except KernelFileError as refused:
        error = str(refused)
    return {
        "mergeable_mib": mergeable,
        "merged_mib": merged,
        "profit_mib": profit,
        "ksm_error": error,
    }


def disks_of(fs: KernelFS, seen: SeenGuest) -> dict[str, Any]:
    """Disks that a guest is on, as JSON has them; what it is on instead, or why it is not known."""
    found = disks.in_use(fs)
    used = found.value or disks.DisksInUse([])
    labels = {seen.name, f"process {seen.pid}"}
    content = [
        {
            "disk": one.disk.name,
            "class": one.disk.attached.kind.value,
            "scheduler": one.disk.scheduler,
            "wanted": one.wanted,
            "why": one.why,
        }
        for one in used.verdicts
        if labels & set(one.users)
    ]
    others = ", ".join(what for what, names in used.others.items() if labels & set(names))
    hidden = "" if content or not os.geteuid() else disks.NOT_ROOT
    return {"disks": content, "disks_error": found.why or others or hidden}
