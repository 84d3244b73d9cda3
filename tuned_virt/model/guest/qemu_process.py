# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's processes, found by what they run, not by a pattern of their command line.

A process is a guest's if the program that it executes, or where that cannot be read its name, is
one of QEMU's system emulators: qemu-system-x86_64 and its kin, qemu-kvm (RHEL), kvm (a link to
qemu-system-x86_64 on Debian and Proxmox). libvirt, `-name process=` and KVM or TCG change nothing
about that. User-mode emulators (qemu-x86_64) run no guests. Cloud Hypervisor's processes are guests
too: KSM, huge pages and disks do not depend on who runs a guest.
"""

from __future__ import annotations

import os
import re
import resource

from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFileAbsent, KernelFileError, KernelFS
from tuned_virt.model import topology
from tuned_virt.model.guest import printable

PROGRAM = re.compile(r"(qemu-system-[\w.-]+|qemu-kvm|kvm|cloud-hypervisor)( \(deleted\))?")
"""The program; the kernel appends "(deleted)" once a package upgrade has replaced it."""

NAME = re.compile(r"qemu-system-\S*|qemu-kvm|kvm|cloud-hyperviso")
"""The same as /proc/PID/comm has it: at most 15 characters."""

CLOUD_HYPERVISOR = "cloud-hypervisor"

SHARED = re.compile(r",(share|hugetlb)=(on|yes|true)(,|$)")
"""In a backend of memory."""

LIBVIRTS = "/libvirt/qemu/"
"""In the command line of each guest that libvirt has started: its folder of sockets and keys."""

FIRST = re.compile(r"(?:[^,]|,,)*")
"""The first of QEMU's comma-separated values, in which a comma is doubled."""

RESCAN = 600.0
"""Seconds after which numbers known as other processes' are looked at again."""

YOUNG = 30.0
"""Seconds in which a new process may still become QEMU: libvirt forks, prepares, then executes."""


SHARE_OF_FILES = 2
"""One in so many of the files that this process may open is kept open on a guest's memory."""


@dataclass(frozen=True)
class QemuProcess:
    """A QEMU process: what its command line says of the guest ("" for nothing), and its memory.

    `resident` is in KiB; merged pages are counted. `shares_pages` is False with mem-merge=off,
    as <nosharepages/> has it; `apart` where KSM cannot merge its memory, which is shared, in huge
    pages, or held by a device. `by_libvirt`: libvirt has started it.
    """

    pid: int
    uuid: str
    name: str
    shares_pages: bool
    resident: int = 0
    by_libvirt: bool = field(default=True, compare=False)
    apart: bool = False

    @property
    def mergeable(self) -> bool:
        """Whether KSM can merge its memory."""
        return self.shares_pages and not self.apart

    @property
    def label(self) -> str:
        """Its name and process, for people."""
        return f"{self.name} (process {self.pid})".lstrip()


class _Watched:
    """A guest whose memory is read again and again, from a file kept open where there is one.

    Such a file belongs to the process, not to its number: once it has ended, reading fails.
    """

    def __init__(self, fs: KernelFS, guest: QemuProcess, keep_open: bool) -> None:
        self._fs = fs
        self._path = f"/proc/{guest.pid}/statm"
        self._kib = topology.page_size() // 1024
        self.file = fs.open(self._path) if keep_open else None
        self.guest = guest
        self.label = guest.label
        self.resident = 0

    def look(self) -> bool:
        """Read its memory; False for one that has ended."""
        try:
            text = self._fs.read(self._path) if self.file is None else os.pread(self.file, 128, 0)
        except (KernelFileAbsent, ProcessLookupError):
            return False
        except (KernelFileError, OSError):
            return True  # it cannot be read now, and has what it had
        fields = text.split()
        self.resident = int(fields[1]) * self._kib if len(fields) > 1 else 0
        return self.resident > 0

    def close(self) -> None:
        """Keep no file open."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


class QemuProcesses:
    """Finds QEMU's processes again and again; one that is known costs one small read."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._watched: dict[int, _Watched] = {}
        self._others: set[int] = set()
        self._young: dict[int, float] = {}
        self._scanned = float("-inf")
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // SHARE_OF_FILES

    def look(self, now: float) -> list[_Watched]:
        """All of them at a moment, in seconds of any steady clock."""
        if now - self._scanned >= RESCAN:
            self._scanned = now
            self._others.clear()
        pids = procfs.pids(self._fs)
        for pid in (self._others | self._watched.keys()) - pids:
            self._forget(pid)
        for pid in pids - self._others - self._watched.keys():
            self._young[pid] = now
        self._identify(now)
        for pid in [pid for pid, watched in self._watched.items() if not watched.look()]:
            self._forget(pid)
        return list(self._watched.values())

    def guests(self, now: float) -> list[QemuProcess]:
        """The same, as plain values."""
        return [replace(one.guest, resident=one.resident) for one in self.look(now)]

    def close(self) -> None:
        """Keep no file open."""
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()

    def _identify(self, now: float) -> None:
        """Look at the new processes; those that are not QEMU may still become it."""
        for pid, since in list(self._young.items()):
            guest = identify(self._fs, pid)
            if guest is not None:
                keep_open = len(self._watched) < self._files
                self._watched[pid] = _Watched(self._fs, guest, keep_open)
                self._others.discard(pid)
            else:
                self._others.add(pid)
            if guest is not None or now - since >= YOUNG:
                del self._young[pid]

    def _forget(self, pid: int) -> None:
        self._others.discard(pid)
        self._young.pop(pid, None)
        watched = self._watched.pop(pid, None)
        if watched:
            watched.close()


def identify(fs: KernelFS, pid: int) -> QemuProcess | None:
    """What a process says of its guest; None for one that is no QEMU."""
    program = fs.link(f"/proc/{pid}/exe")
    if program is None:
        found = NAME.fullmatch(fs.read_permitted(f"/proc/{pid}/comm") or "")
    else:
        found = PROGRAM.fullmatch(program.rpartition("/")[2])
    if not found:
        return None
    words = _words(fs, pid)
    if words == [""]:
        return None  # a kernel thread or a zombie
    if CLOUD_HYPERVISOR in (program or "").rpartition("/")[2] or found[0] == CLOUD_HYPERVISOR[:15]:
        return _cloud_hypervisor(pid, words)
    return QemuProcess(
        pid=pid,
        uuid=_after(words, "-uuid"),
        name=_name(_after(words, "-name")),
        shares_pages=not any("mem-merge=off" in one.split(",") for one in _machine(words)),
        by_libvirt=any(LIBVIRTS in word for word in words),
        apart=_is_apart(words),
    )


def _machine(words: list[str]) -> list[str]:
    return [*_all_after(words, "-machine"), *_all_after(words, "-M")]


def _is_apart(words: list[str]) -> bool:
    """Whether all backends of its memory are shared or in huge pages, or VFIO holds its pages."""
    devices, objects = _all_after(words, "-device"), _all_after(words, "-object")
    backends = [one for one in objects if one.startswith("memory-backend-")]
    held = any(one.startswith("vfio-") for one in devices)
    return held or (bool(backends) and all(map(SHARED.search, backends)))


def _cloud_hypervisor(pid: int, words: list[str]) -> QemuProcess:
    """Its memory is merged where it is asked for; it names its guest by nothing but its socket."""
    memory = _after(words, "-memory").split(",")
    merged = "mergeable=on" in memory and "shared=on" not in memory
    uuid = re.search(r"(?:^|,)uuid=([^,]+)", _after(words, "-platform"))
    socket = _after(words, "-api-socket").rpartition("/")[2]
    name = printable(socket.partition(".")[0].partition("path=")[2] or socket.partition(".")[0])
    return QemuProcess(pid, uuid[1] if uuid else "", name, merged, by_libvirt=False)


def claimed_uuid(fs: KernelFS, pid: int) -> str:
    """The guest that a process's arguments name, whatever program it is; "" for none."""
    return _after(_words(fs, pid), "-uuid")


KVM_MACHINE = "anon_inode:kvm-vm"
"""What a process has open on its machine (virt/kvm/kvm_main.c, kvm_dev_ioctl_create_vm)."""


def uses_kvm(fs: KernelFS, pid: int) -> bool | None:
    """Whether a guest runs under KVM, not in TCG; None where its files are not shown."""
    top = f"/proc/{pid}/fd"
    try:
        links = [fs.link(f"{top}/{name}") for name in fs.names(top)]
    except KernelFileError:
        return None
    return KVM_MACHINE in links if any(links) else None


def _words(fs: KernelFS, pid: int) -> list[str]:
    return (fs.read_permitted(f"/proc/{pid}/cmdline") or "").split("\0")


def _after(words: list[str], option: str) -> str:
    return next(reversed(_all_after(words, option)), "")


def _all_after(words: list[str], option: str) -> list[str]:
    return [after for word, after in zip(words, words[1:]) if word in (option, f"-{option}")]


def _name(text: str) -> str:
    first = FIRST.match(text)
    name = first[0].replace(",,", ",") if first else ""
    return printable(name[6:] if name.startswith("guest=") else name)
