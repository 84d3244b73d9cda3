"""QEMU's processes, found by what they run, not by a pattern of their command line.

A process is a guest's if the program that it executes, or where that cannot be read its name, is
one of QEMU's system emulators: qemu-system-x86_64 and its kin, qemu-kvm (RHEL), kvm (a link to
qemu-system-x86_64 on Debian and Proxmox). libvirt, `-name process=` and KVM or TCG change nothing
about that. User-mode emulators (qemu-x86_64) run no guests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuned_virt import topology
from tuned_virt.guest import printable
from tuned_virt.kernelfs import KernelFS

PROGRAM = re.compile(r"(qemu-system-[\w.-]+|qemu-kvm|kvm)( \(deleted\))?")
"""QEMU's program; the kernel appends "(deleted)" once a package upgrade has replaced it."""

NAME = re.compile(r"qemu-system-\S*|qemu-kvm|kvm")
"""The same as /proc/PID/comm has it: at most 15 characters."""

RESCAN = 600.0
"""Seconds after which numbers known as other processes' are looked at again."""

YOUNG = 30.0
"""Seconds in which a new process may still become QEMU: libvirt forks, prepares, then executes."""


@dataclass(frozen=True)
class Guest:
    """A QEMU process: what its command line says of the guest ("" for nothing), and its memory.

    `resident` is in KiB; merged pages are counted. `shares_pages` is False with mem-merge=off,
    as <nosharepages/> has it.
    """

    pid: int
    uuid: str
    name: str
    shares_pages: bool
    resident: int


@dataclass(frozen=True)
class _Known:
    uuid: str
    name: str
    shares_pages: bool


class Processes:
    """Finds QEMU's processes again and again; one that is known costs one small read."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._known: dict[int, _Known | None] = {}
        self._young: dict[int, float] = {}
        self._scanned = float("-inf")
        self._kib = topology.page_size() // 1024

    def guests(self, now: float) -> list[Guest]:
        """All of them at a moment, in seconds of any steady clock."""
        if now - self._scanned >= RESCAN:
            self._known, self._young, self._scanned = {}, {}, now
        pids = {int(name) for name in self._fs.names("/proc") if name.isdigit()}
        for gone in self._known.keys() - pids:
            del self._known[gone]
            self._young.pop(gone, None)
        for pid in pids - self._known.keys():
            self._known[pid] = identify(self._fs, pid)
            if self._known[pid] is None:
                self._young[pid] = now
        self._look_again(now)
        return [guest for pid, known in self._known.items() if (guest := self._guest(pid, known))]

    def _look_again(self, now: float) -> None:
        for pid, since in list(self._young.items()):
            if since != now:
                self._known[pid] = identify(self._fs, pid)
            if self._known[pid] or now - since >= YOUNG:
                del self._young[pid]

    def _guest(self, pid: int, known: _Known | None) -> Guest | None:
        if known is None:
            return None
        fields = (self._fs.read_optional(f"/proc/{pid}/statm") or "").split()
        if len(fields) < 2 or fields[1] == "0":
            return None
        resident = int(fields[1]) * self._kib
        return Guest(pid, known.uuid, known.name, known.shares_pages, resident)


def identify(fs: KernelFS, pid: int) -> _Known | None:
    """What a process says of its guest; None for one that is no QEMU."""
    program = fs.link(f"/proc/{pid}/exe")
    if program is None:
        found = NAME.fullmatch(fs.read_optional(f"/proc/{pid}/comm") or "")
    else:
        found = PROGRAM.fullmatch(program.rpartition("/")[2])
    if not found:
        return None
    words = (fs.read_optional(f"/proc/{pid}/cmdline") or "").split("\0")
    if words == [""]:
        return None  # a kernel thread or a zombie
    return _Known(
        uuid=_after(words, "-uuid"),
        name=_name(_after(words, "-name")),
        shares_pages="mem-merge=off" not in _after(words, "-machine").split(","),
    )


def _after(words: list[str], option: str) -> str:
    places = [number for number, word in enumerate(words[:-1]) if word in (option, f"-{option}")]
    return words[places[-1] + 1] if places else ""


def _name(text: str) -> str:
    first = text.split(",", maxsplit=1)[0]
    return printable(first[6:] if first.startswith("guest=") else first)
