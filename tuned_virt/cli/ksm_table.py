# SPDX-License-Identifier: GPL-2.0-or-later
"""What KSM does for each running guest: QEMU's processes, with what libvirt and the kernel say."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.running_guests import RunningGuest, RunningGuestReader
from tuned_virt.model import topology
from tuned_virt.model.guest import printable, qemu_process

SILENT = "libvirt does not answer: the guests' names and memory are those of their processes"


@dataclass(frozen=True)
class KsmRow:
    """One guest; None where neither libvirt nor the kernel tells.

    memory_mib     what it may use now, by libvirt
    opted_out      <nosharepages/>, mem-merge=off: KSM leaves it alone
    mergeable_mib  pages that ksmd has seen and may merge
    merged_mib     pages that are merged, also with the zero page
    profit_mib     the kernel's estimate of what that saves, less its bookkeeping
    """

    guest: str
    uuid: str
    pid: int | None
    memory_mib: int | None
    opted_out: bool
    mergeable_mib: float | None = None
    merged_mib: float | None = None
    profit_mib: float | None = None


def gather(fs: KernelFS) -> tuple[list[KsmRow], str]:
    """The rows, and a remark where libvirt is there and does not answer. Waits for it for 5 s."""
    processes = qemu_process.QemuProcesses(fs).guests(time.monotonic())
    if not processes and fs.sees_all_processes():
        return [], ""
    known, remark = ask_libvirt()
    return rows(processes, known, fs.read_permitted), remark


def ask_libvirt() -> tuple[Mapping[str, RunningGuest], str]:
    """Running guests by UUID, none where libvirt is unavailable; and a remark if it hangs."""
    found = RunningGuestReader().once()
    if found is None:
        return {}, "" if binding.missing() else SILENT
    return found, ""


def rows(
    processes: Iterable[qemu_process.QemuProcess],
    libvirt: Mapping[str, RunningGuest],
    read: Callable[[str], str | None],
) -> list[KsmRow]:
    """A row for each process, and for each guest of libvirt whose process is not to be seen."""
    seen = list(processes)
    found = [_row(guest, libvirt.get(guest.uuid), read) for guest in seen]
    hidden = libvirt.keys() - {guest.uuid for guest in seen}
    found += [_row(None, libvirt[uuid], read) for uuid in hidden]
    return sorted(found, key=lambda row: (row.guest, row.pid or 0))


def _row(
    process: qemu_process.QemuProcess | None,
    known: RunningGuest | None,
    read: Callable[[str], str | None],
) -> KsmRow:
    shares = all(guest.shares_pages for guest in (process, known) if guest)
    sizes = sizes_of(process.pid, read) if process and shares else (None, None, None)
    return KsmRow(
        _name(process, known),
        process.uuid if process else known.uuid if known else "",
        process.pid if process else None,
        known.memory // 1024 if known else None,
        not shares,
        *sizes,
    )


def _name(process: qemu_process.QemuProcess | None, known: RunningGuest | None) -> str:
    if known:
        return printable(known.name)
    assert process
    return process.name or str(process.pid)


@dataclass(frozen=True)
class KsmProcess:
    """A process that is no guest and takes part: `whole` where all its memory does (prctl(2),
    PR_SET_MEMORY_MERGE, as systemd's MemoryKSM= has it), else what it has advised (madvise(2))."""

    process: str
    pid: int
    whole: bool
    merged_mib: float | None
    profit_mib: float | None


def others(fs: KernelFS) -> list[KsmProcess]:
    """Those processes by name; none where ksm_stat does not tell (before 6.1; root only)."""
    found = []
    for pid in procfs.pids(fs):
        text = fs.read_permitted(f"/proc/{pid}/ksm_stat") or ""
        whole = re.search(r"^ksm_merge_any: yes$", text, re.MULTILINE) is not None
        if (whole or _counts_pages(text)) and qemu_process.identify(fs, pid) is None:
            _, merged, profit = sizes_of(pid, fs.read_permitted)
            name = printable(fs.read_permitted(f"/proc/{pid}/comm") or str(pid))
            found.append(KsmProcess(name, pid, whole, merged, profit))
    return sorted(found, key=lambda one: (one.process, one.pid))


def _counts_pages(stat: str) -> bool:
    return re.search(r"^ksm_(merging_pages|zero_pages) [1-9]", stat, re.MULTILINE) is not None


def sizes_of(
    pid: int, read: Callable[[str], str | None]
) -> tuple[float | None, float | None, float | None]:
    """Mergeable, merged and profit in MiB, each None where this kernel or user is not told.

    ksm_merging_pages is there since Linux 5.19, ksm_stat since 6.1, its parts since up to 6.6.
    """
    stat = dict(re.findall(r"^(\w+)\s+(-?\d+)$", read(f"/proc/{pid}/ksm_stat") or "", re.MULTILINE))
    merging = stat.get("ksm_merging_pages") or read(f"/proc/{pid}/ksm_merging_pages")
    page = topology.page_size()
    merged = int(merging) + int(stat.get("ksm_zero_pages", 0)) if merging else None
    return (
        _mib(stat.get("ksm_rmap_items"), page),
        _mib(merged, page),
        _mib(stat.get("ksm_process_profit"), 1),
    )


def _mib(count: str | int | None, unit: int) -> float | None:
    return None if count is None else round(int(count) * unit / 2**20, 1)
