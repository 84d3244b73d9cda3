# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools that behave as the kernel's mm/hugetlb.c: real ones need root.

The same rules are tried on real kernels in tests/vm/test_hugepages.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuned_virt.kernel.files import KernelFileAbsent, KernelFileError, KernelFS
from tuned_virt.model import topology
from tuned_virt.model.topology.huge_pages import FOLDER, folder
from tuned_virt.plugins.hugepages_numa.pools import TRANSPARENT

M2 = 2048
G1 = 1 << 20


@dataclass
class Memory:
    """A node's memory in KiB."""

    total: int
    free: int
    cache: int = 0


@dataclass
class Counts:
    """One pool. `mapped` pages are in use; `reach` is the most pages that can be found at once."""

    nr: int = 0
    mapped: int = 0
    surplus: int = 0
    reach: int = 1 << 30

    @property
    def persistent(self) -> int:
        return self.nr - self.surplus


class FakeHugetlb(KernelFS):
    """`memory` by node, `pools` by node and size; `writes` are what was written, in order.

    A write that has the pool grow stops at its `reach`, which compaction lifts by `compaction`.
    """

    def __init__(
        self,
        memory: dict[int, Memory],
        pools: dict[tuple[int, int], Counts] | None = None,
        sizes: tuple[int, ...] = (M2, G1),
        counts_all_surplus: bool = False,
    ) -> None:
        super().__init__()
        own = {(node, size): Counts() for node in memory for size in sizes}
        files = {
            f"{TRANSPARENT}/enabled": "always [madvise] never",
            f"{TRANSPARENT}/defrag": "always defer defer+madvise [madvise] never",
            f"{TRANSPARENT}/khugepaged/pages_to_scan": "4096",
            "/proc/cmdline": "quiet",
            "/proc/self/mounts": "",
            "/proc/meminfo": "Hugepagesize: 2048 kB",
        }
        for name, value in {
            "memory": memory,
            "pools": {**own, **(pools or {})},
            "sizes": sizes,
            "files": files,
            "writes": [],
            "compaction": 1 << 30,
            "old": counts_all_surplus,
        }.items():
            object.__setattr__(self, name, value)

    memory: dict[int, Memory]
    pools: dict[tuple[int, int], Counts]
    sizes: tuple[int, ...]
    files: dict[str, str]
    writes: list[tuple[str, str]]
    compaction: int
    old: bool

    def persistent(self) -> dict[tuple[int, int], int]:
        return {place: counts.persistent for place, counts in self.pools.items()}

    def glob(self, pattern: str) -> list[str]:
        return []

    def names(self, path: str) -> list[str]:
        if path == topology.NODES:
            return ["possible", *{f"node{node}": None for node, _ in self.pools}]
        folders = [folder(node, size) for node, size in self.pools]
        folders += [folder(None, size) for size in self.sizes]
        return [one.rpartition("/")[2] for one in folders if one.rpartition("/")[0] == path]

    def link(self, path: str) -> str | None:
        return None

    def changed_at(self, path: str) -> float | None:
        return None

    def exists(self, path: str) -> bool:
        return path in self.files

    def read(self, path: str) -> str:
        if path in self.files:
            return self.files[path]
        pool = re.fullmatch(rf"{topology.NODES}/node(\d+)/hugepages/hugepages-(\d+)kB/(\w+)", path)
        if pool and (place := (int(pool[1]), int(pool[2]))) in self.pools:
            return self._count(self.pools[place], pool[3])
        node = re.fullmatch(rf"{topology.NODES}/node(\d+)/meminfo", path)
        if node and int(node[1]) in self.memory:
            memory = self.memory[int(node[1])]
            found = {"MemTotal": memory.total, "MemFree": memory.free}
            found["Inactive(file)"] = memory.cache
            return "\n".join(f"Node {node[1]} {name}: {kib} kB" for name, kib in found.items())
        return self._global(path)

    def _global(self, path: str) -> str:
        if path == f"{topology.NODES}/has_memory":
            return ",".join(map(str, self.memory))
        found = re.fullmatch(rf"{FOLDER}/hugepages-(\d+)kB/(\w+)", path)
        if not found:
            raise KernelFileAbsent(path, "No such file or directory")
        size = int(found[1])
        if found[2] == "surplus_hugepages":
            pools = [pool for place, pool in self.pools.items() if place[1] == size]
            return str(sum(pool.surplus for pool in pools))
        if found[2] == "demote_size" and size == G1:
            return f"{M2}kB"
        if found[2] == "nr_overcommit_hugepages":
            return "0"
        raise KernelFileAbsent(path, "No such file or directory")

    @staticmethod
    def _count(counts: Counts, name: str) -> str:
        return str(
            {
                "nr_hugepages": counts.nr,
                "free_hugepages": counts.nr - counts.mapped,
                "surplus_hugepages": counts.surplus,
            }[name]
        )

    def write(self, path: str, value: str) -> None:
        self.writes.append((path, value))
        pool = re.fullmatch(rf"{topology.NODES}/node(\d+)/hugepages/hugepages-(\d+)kB/(\w+)", path)
        if path.endswith("/compact"):
            node = int(re.findall(r"node(\d+)", path)[0])
            for place, counts in self.pools.items():
                counts.reach += self.compaction if place[0] == node else 0
        elif pool:
            place = (int(pool[1]), int(pool[2]))
            act = self._resize if pool[3] == "nr_hugepages" else self._demote
            act(place, int(value))
        elif path in self.files:
            words = [word.strip("[]") for word in self.files[path].split()]
            marked = " ".join(f"[{word}]" if word == value else word for word in words)
            self.files[path] = marked if "[" in self.files[path] else value
        else:
            raise KernelFileError(path, "No such file or directory", value)

    def _resize(self, place: tuple[int, int], count: int) -> None:
        counts, size = self.pools[place], place[1]
        if self.old:
            others = (pool for other, pool in self.pools.items() if other[1] == size)
            count += sum(pool.surplus for pool in others) - counts.surplus
        while counts.surplus and count > counts.persistent:
            counts.surplus -= 1
        while count > counts.persistent and counts.nr < counts.reach and self._take(place):
            counts.nr += 1
        while counts.persistent > max(count, counts.mapped):
            counts.nr -= 1
            self.memory[place[0]].free += size
        counts.surplus += max(0, counts.persistent - max(count, 0))

    def _take(self, place: tuple[int, int]) -> bool:
        memory, size = self.memory[place[0]], place[1]
        if memory.free + memory.cache < size:
            return False
        from_cache = max(0, size - memory.free)
        memory.cache -= from_cache
        memory.free -= size - from_cache
        return True

    def _demote(self, place: tuple[int, int], pages: int) -> None:
        larger, smaller = self.pools[place], self.pools[place[0], M2]
        done = min(pages, larger.nr - larger.mapped)
        larger.nr -= done
        smaller.nr += done * (G1 // M2)
