# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a process's memory is, by NUMA node, from /proc/PID/numa_maps and maps.

Reading walks the process's page tables: about 10 ns a page, so seconds for a guest of terabytes in
4 KiB pages. Callers read it where nobody waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFS

LEAST = 4 << 20
"""Bytes from which a mapping counts as a guest's memory; QEMU's own are smaller."""

START = re.compile(r"[0-9a-f]{1,16}(?= )")
NODE = re.compile(r"\bN(\d{1,9})=(\d{1,18})\b", re.ASCII)
PAGE = re.compile(r"\bkernelpagesize_kB=(\d{1,18})\b", re.ASCII)
RANGE = re.compile(r"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) (\S+) \S+ \S+ \d+\s*(.*)$", re.ASCII)
QEMUS_OWN = ("[heap]", "[stack]")


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
    """A guest's memory, mapping by mapping; none of a process that has gone.

    Raises KernelFileError where it cannot be read, or not by this user.
    """
    ends = dict(_large(fs.read_optional(f"/proc/{pid}/maps") or ""))
    found = []
    for line in (fs.read_optional(f"/proc/{pid}/numa_maps") or "").splitlines():
        start, page = START.match(line), PAGE.search(line)
        if start and page and int(start[0], 16) in ends:
            first, size = int(start[0], 16), int(page[1])
            nodes = {int(node): int(pages) * size for node, pages in NODE.findall(line)}
            if nodes:
                found.append(Area(first, ends[first], size, nodes))
    return found


def _large(maps: str) -> Iterator[tuple[int, int]]:
    """Large writable mappings, whatever file they are of: huge pages, memfd, a file, a device.

    A file that is mapped to be executed as well is a program or a library, and what is executed
    without a file is code that TCG makes.
    """
    found = [match.groups() for match in map(RANGE.match, maps.splitlines()) if match]
    programs = {path for _, _, access, path in found if "x" in access and path}
    for first, last, access, path in found:
        start, end = int(first, 16), int(last, 16)
        own = "x" in access or path in programs or path in QEMUS_OWN
        if "w" in access and not own and end - start >= LEAST:
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
