# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc of guests' processes, as files in a folder, with what each test says of them."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path

from tuned_virt.kernel.files import KernelFileError, KernelFS

STARTED = "4711"


class FakeProc(KernelFS):
    """Files below a folder; counts which folders are listed, and denies what it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listed = collections.Counter[str]()
        self.denied: set[str] = set()

    def names(self, path: str) -> list[str]:
        self.listed[path] += 1
        self._check(path)
        return super().names(path)

    def read(self, path: str) -> str:
        self._check(path)
        return super().read(path)

    def _check(self, path: str) -> None:
        if path in self.denied:
            raise KernelFileError(path, "Permission denied", code=13)

    def put(self, path: str, text: str) -> None:
        """A file's text."""
        file = Path(self.root) / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def node(self, number: int, cpus: str) -> None:
        """A NUMA node."""
        self.put(f"/sys/devices/system/node/node{number}/cpulist", cpus)
        self.put(f"/sys/devices/system/node/node{number}/meminfo", "Node 0 MemTotal: 1024 kB\n")

    def guest(
        self, pid: int, name: str, vcpus: Mapping[int, str], pages: str = "", uuid: str = ""
    ) -> None:
        """A guest: where its vCPUs may run, and what numa_maps says behind one mapping's start."""
        top = f"/proc/{pid}"
        self.put(f"{top}/comm", "qemu-system-x86\n")
        self.put(f"{top}/cmdline", f"qemu\0-name\0guest={name}\0-uuid\0{uuid or f'uuid-{pid}'}\0")
        self.put(f"{top}/statm", "9000 5000 0 0 0 0 0\n")
        self.put(f"{top}/maps", "7f0000000000-7f0100000000 rw-p 00000000 00:00 0\n")
        self.put(f"{top}/numa_maps", f"7f0000000000 default {pages}\n" if pages else "")
        self.thread(pid, pid, "qemu-system-x86", "0-7")
        for number, cpus in vcpus.items():
            self.thread(pid, pid + 1 + number, f"CPU {number}/KVM", cpus)
            self.waited(pid, pid + 1 + number, 0)

    def thread(self, pid: int, thread: int, comm: str, cpus: str, ran: int = 0) -> None:
        """One of its threads, and the CPU on which it ran last."""
        top = f"/proc/{pid}/task/{thread}"
        self.put(f"{top}/comm", comm)
        self.put(f"{top}/status", f"Name:\t{comm}\nCpus_allowed_list:\t{cpus}\n")
        fields = ["S", *"0" * 18, STARTED, *"0" * 16, str(ran), *"0" * 13]
        self.put(f"{top}/stat", f"{thread} ({comm}) {' '.join(fields)}\n")

    def waited(self, pid: int, thread: int, nanoseconds: int) -> None:
        """How long a thread has waited for a CPU."""
        self.put(f"/proc/{pid}/task/{thread}/schedstat", f"1000 {nanoseconds} 10\n")
