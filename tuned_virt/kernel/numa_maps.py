# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a process's memory is, by NUMA node, from /proc/PID/numa_maps and maps.

Reading walks the process's page tables: about 10 ns a page, so seconds for a guest of terabytes in
4 KiB pages. Callers read it where nobody waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFS

LEAST = 4 << 20
"""Bytes from which a mapping counts as a guest's memory; QEMU's own are smaller, but for TCG's."""

NODE = re.compile(r"N(\d+)=(\d+)")
PAGE = re.compile(r"kernelpagesize_kB=(\d+)")
RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+\s*(.*)$")
NOT_MEMORY = re.compile(r"\.so\b|/qemu|\[(heap|stack|vdso|vvar|vsyscall)\b|/usr/|/lib")


@dataclass(frozen=True)
class Area:
    """A mapping that may be guest memory: bytes from start to end, page in KiB, KiB by node."""

    start: int
    end: int
    page: int
    nodes: Mapping[int, int] = field(default_factory=dict)

    @property
    def huge(self) -> bool:
        """Of hugetlbfs: its pages belong to a pool and are never moved here."""
        return self.page > 64  # base pages are of 4, 16 or 64 KiB


def read(fs: KernelFS, pid: int) -> list[Area]:
    """A guest's memory, mapping by mapping; empty for a process that has gone or cannot be read."""
    ends = dict(_large(fs.read_permitted(f"/proc/{pid}/maps") or ""))
    found = []
    for line in (fs.read_permitted(f"/proc/{pid}/numa_maps") or "").splitlines():
        start = int(line.partition(" ")[0], 16)
        page = PAGE.search(line)
        if start in ends and page:
            size = int(page[1])
            nodes = {int(node): int(pages) * size for node, pages in NODE.findall(line)}
            if nodes:
                found.append(Area(start, ends[start], size, nodes))
    return found


def _large(maps: str) -> Iterator[tuple[int, int]]:
    for line in maps.splitlines():
        found = RANGE.match(line)
        if found and not NOT_MEMORY.search(found[3]):
            start, end = int(found[1], 16), int(found[2], 16)
            if end - start >= LEAST:
                yield start, end


def by_node(mappings: list[Area]) -> dict[int, int]:
    """KiB by node over all mappings."""
    total: dict[int, int] = {}
    for mapping in mappings:
        for node, kib in mapping.nodes.items():
            total[node] = total.get(node, 0) + kib
    return dict(sorted(total.items()))


def share(nodes: Mapping[int, int], local: frozenset[int]) -> float | None:
    """Which part of memory, by node, is on these nodes; None where there is none at all."""
    total = sum(nodes.values())
    return sum(kib for node, kib in nodes.items() if node in local) / total if total else None


def locked(fs: KernelFS, pid: int) -> int:
    """KiB of a process that may not be moved (VmLck and VmPin of its status)."""
    fields = procfs.status(fs, str(pid))
    return sum(procfs.kib(fields, name) or 0 for name in ("VmLck", "VmPin"))
