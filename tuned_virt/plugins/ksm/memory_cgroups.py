# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory cgroups that hold merged pages, and whether their limits let those be unmerged.

The copy that unmerging makes of a page is charged to the cgroup of the process whose page it is
(mm/memory.c, wp_page_copy), whatever the host has available; over a limit the kernel kills.
Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import FORBIDDEN, KernelFileError, KernelFS
from tuned_virt.model import topology
from tuned_virt.model.guest import qemu_process

UNLIMITED = 1 << 60
"""Bytes; version 1 of cgroups has a number near 2^63 where there is no limit."""

CACHE = ("active_file", "inactive_file", "slab_reclaimable")
"""What of memory.stat the kernel frees before it kills; `total_` stands before them in version 1,
which does not count slabs."""


LIMITS_V1 = (
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
)
LIMITS_V2 = (("memory.max", "memory.current"), ("memory.high", "memory.current"))


@dataclass(frozen=True)
class Hierarchy:
    """Where memory cgroups are mounted, and which of them is (in a container not the first); their
    files: limits, each with what counts against it, and what names in memory.stat begin with."""

    mounted: str
    root: str
    limits: tuple[tuple[str, str], ...]
    prefix: str = ""


@dataclass(frozen=True)
class MemoryCgroup:
    """A cgroup with a limit. In KiB: the limit, what counts against it, the part of that which is
    cache, and an upper bound of what unmerging adds: pages that its processes have merged."""

    name: str
    limit: int
    used: int
    cache: int
    merged: int

    @property
    def available(self) -> int:
        """KiB that it can still take."""
        return max(self.limit - self.used + self.cache, 0)


def merged_pages(fs: KernelFS) -> dict[int, int] | None:
    """Pages by process that it has merged with others' or its own, the zero page apart.

    None where the kernel or this process's rights do not tell; a container shows its own processes
    alone. Raises KernelFileError.
    """
    if not fs.exists("/proc/self/ksm_merging_pages"):
        return None
    found = {}
    for pid in procfs.pids(fs):
        try:
            found[pid] = fs.read_number(f"/proc/{pid}/ksm_merging_pages")
        except KernelFileError as error:
            if error.code in FORBIDDEN:  # only root may read them
                return None
            raise
    return {pid: pages for pid, pages in found.items() if pages}


def zero_pages(fs: KernelFS) -> dict[int, int]:
    """Pages by process that are merged with the zero page (kernels since 6.6)."""
    found = {}
    for pid in procfs.pids(fs):
        text = fs.read_permitted(f"/proc/{pid}/ksm_stat") or ""
        counted = re.search(r"^ksm_zero_pages (\d+)", text, re.MULTILINE)
        if counted and int(counted[1]):
            found[pid] = int(counted[1])
    return found


def of_guests(fs: KernelFS) -> dict[int, int]:
    """Pages by QEMU process that may be merged, where the kernel does not tell which are: all that
    are resident and anonymous. Raises KernelFileError."""
    page_kib = topology.page_size() // 1024
    guests = (pid for pid in procfs.pids(fs) if qemu_process.identify(fs, pid))
    found = {pid: procfs.kib(procfs.status(fs, str(pid)), "RssAnon") or 0 for pid in guests}
    return {pid: kib // page_kib for pid, kib in found.items() if kib}


def read(fs: KernelFS, pages: Mapping[int, int]) -> tuple[MemoryCgroup, ...]:
    """The cgroups with limits, on every level, that hold these processes' pages.

    Raises KernelFileError.
    """
    hierarchies = _hierarchies(fs)
    merged: Counter[tuple[Hierarchy, str]] = Counter()
    for pid, count in pages.items():
        hierarchy, path = _place(fs.read_permitted(f"/proc/{pid}/cgroup") or "", hierarchies)
        if hierarchy:
            merged.update({(hierarchy, level): count for level in _levels(path, hierarchy.root)})
    page_kib = topology.page_size() // 1024
    return tuple(
        group
        for (hierarchy, level), count in sorted(merged.items(), key=lambda one: one[0][1])
        for group in _limits(fs, hierarchy, level, count * page_kib)
    )


def _hierarchies(fs: KernelFS) -> dict[str, Hierarchy]:
    """By what marks their line in /proc/PID/cgroup: "memory" for version 1, "" for version 2."""
    found: dict[str, Hierarchy] = {}
    for line in (fs.read_optional("/proc/self/mountinfo") or "").splitlines():
        mount, _, system = (part.split() for part in line.partition(" - "))
        place = procfs.unescaped(mount[4]), mount[3]
        if system[0] == "cgroup2":
            found.setdefault("", Hierarchy(*place, LIMITS_V2))
        elif system[0] == "cgroup" and "memory" in system[2].split(","):
            found.setdefault("memory", Hierarchy(*place, LIMITS_V1, "total_"))
    return found


def _place(text: str, hierarchies: Mapping[str, Hierarchy]) -> tuple[Hierarchy | None, str]:
    """A process's memory cgroup: in version 1 where that has the controller."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for controller in ("memory", ""):
        if controller in hierarchies and controller in paths:
            return hierarchies[controller], paths[controller]
    return None, ""


def _levels(path: str, root: str) -> Iterator[str]:
    """The cgroup and all above it, up to the one that is mounted."""
    parts, above = ([part for part in one.split("/") if part] for one in (path, root))
    if parts[: len(above)] == above and ".." not in parts[len(above) :]:
        for depth in range(len(parts), len(above) - 1, -1):
            yield "/" + "/".join(parts[len(above) : depth])


def _limits(fs: KernelFS, hierarchy: Hierarchy, path: str, merged: int) -> Iterator[MemoryCgroup]:
    """Of a cgroup's limits the one that leaves least; none where there is no limit."""
    folder = hierarchy.mounted + path.rstrip("/")
    stat = dict(re.findall(r"(\w+) (\d+)", fs.read_optional(f"{folder}/memory.stat") or ""))
    cache = sum(int(stat.get(hierarchy.prefix + name, 0)) for name in CACHE) // 1024
    found = []
    for limit, usage in hierarchy.limits:
        text = fs.read_optional(f"{folder}/{limit}") or "max"
        if text.isdigit() and int(text) < UNLIMITED:
            used = fs.read_number(f"{folder}/{usage}") // 1024
            found.append(MemoryCgroup(path, int(text) // 1024, used, cache, merged))
    yield from sorted(found, key=lambda group: group.available)[:1]
