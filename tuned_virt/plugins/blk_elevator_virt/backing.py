# SPDX-License-Identifier: GPL-2.0-or-later
"""Which block devices guests use: from their open files, and from the paths that libvirt names.

A running guest is asked of through /proc, which no dead file system holds up: what a descriptor
lies on is in its mount's line, not in the file. The paths of defined guests have to be looked at,
which hangs where such a file system is dead: that is bounded, and the last answer kept.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import procfs, timeouts
from tuned_virt.kernel.files import FORBIDDEN, KernelFileError, KernelFS
from tuned_virt.plugins.blk_elevator_virt import state

STATE_FOLDERS = ("/dev/", "/proc/", "/run/", "/sys/", "/var/lib/libvirt/qemu/", "/var/log/")
"""Where QEMU's open files are no disks: its own state, logs, sockets."""


@dataclass(frozen=True)
class FilesystemMount:
    """A line of mountinfo (proc(5)): device number, mount point, type and source."""

    number: str
    point: str
    kind: str
    source: str


def mounts(text: str) -> dict[str, FilesystemMount]:
    """Mounts by their id."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) > 4 and len(rest) > 1:
            found[fields[0]] = FilesystemMount(
                fields[2], procfs.unescaped(fields[4]), rest[0], procfs.unescaped(rest[1])
            )
    return found


def mount_of(path: str, all_mounts: Iterable[FilesystemMount]) -> FilesystemMount | None:
    """The mount that a path lies on: the last of those with the longest mount point."""
    found = None
    for mount in all_mounts:
        point = mount.point.rstrip("/")
        fits = path == point or path.startswith(f"{point}/")
        if fits and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


class BackingDevices:
    """Follows guests' files to block devices."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._workers = KeyedWorkerPool("virt-disks-paths", threads=1, patience=timeouts.DISKS_READ)
        self._last: dict[str, frozenset[str]] = {}

    def of_process(self, pid: int) -> frozenset[str]:
        """Names of the block devices that a process has open, or that hold its open files."""
        found = set()
        own = mounts(self._fs.read_permitted(f"/proc/{pid}/mountinfo") or "")
        for number in self._files(pid):
            path = self._fs.link(f"/proc/{pid}/fd/{number}") or ""
            if path.startswith("/dev/"):
                found.add(self._device(path, f"/proc/{pid}/fd/{number}"))
            elif path.startswith("/") and not path.startswith(STATE_FOLDERS):
                info = self._fs.read_permitted(f"/proc/{pid}/fdinfo/{number}") or ""
                mount = re.search(r"^mnt_id:\s*(\d+)", info, re.MULTILINE)
                found |= set(self._under(own.get(mount[1]) if mount else None))
        return frozenset(found - {""})

    def _files(self, pid: int) -> list[str]:
        """Numbers of a process's open files; none where they are not for this process to see."""
        try:
            return self._fs.names(f"/proc/{pid}/fd")
        except KernelFileError as error:
            if error.code in FORBIDDEN:
                return []
            raise

    def of_paths(self, paths: Mapping[str, tuple[str, ...]]) -> dict[str, frozenset[str]]:
        """The same of paths, by guest; one that does not answer keeps its last answer."""
        own = list(mounts(self._fs.read_optional("/proc/self/mountinfo") or "").values())
        answers = self._workers.run(
            {guest: functools.partial(self._of_guest, named, own) for guest, named in paths.items()}
        )
        found = {guest: answers.get(guest, self._last.get(guest, frozenset())) for guest in paths}
        self._last.update(found)
        return found

    def _of_guest(self, paths: Iterable[str], own: list[FilesystemMount]) -> frozenset[str]:
        found: set[str] = set()
        for path in paths:
            real = self._fs.resolved(path)
            device = self._device(real, real) if real.startswith("/dev/") else ""
            found |= {device} if device else set(self._under(mount_of(real, own)))
        return frozenset(found - {""})

    def _device(self, path: str, node: str) -> str:
        """The name of a block device, by its path, else by what is open; "" for other devices."""
        name = path.removeprefix("/dev/").removesuffix(" (deleted)").replace("/", "!")
        if self._fs.exists(f"/sys/class/block/{name}"):
            return name
        number = self._fs.block_number(node)
        return self._named(number) if number else ""

    def _named(self, number: str) -> str:
        link = self._fs.link(f"/sys/dev/block/{number}") or ""
        return link.rpartition("/")[2]

    def _under(self, mount: FilesystemMount | None) -> Iterator[str]:
        """Block devices under a file system; none for one of the network."""
        if mount is None:
            return
        name = self._named(mount.number)
        if not name and mount.source.startswith("/dev/"):
            name = self._device(self._fs.resolved(mount.source), mount.source)
        yield name
        if mount.kind == "btrfs" and name:
            for path in self._fs.glob(f"/sys/fs/btrfs/*/devices/{name}"):
                yield from self._fs.names(path.rpartition("/")[0])


def queues(
    devices: Iterable[str], disks: Mapping[str, state.Disk], fs: KernelFS, backing: BackingDevices
) -> frozenset[str]:
    """The disks whose queues order what is sent to block devices, partitions and loops included."""
    found: set[str] = set()
    waiting = [state.whole(fs, name) for name in devices]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found |= state.queues_of(name, disks)
        file = fs.read_optional(f"/sys/block/{name}/loop/backing_file") if "loop" in name else ""
        if file:
            under = backing.of_paths({f"loop:{name}": (file,)})
            waiting += [state.whole(fs, one) for one in under[f"loop:{name}"]]
    return frozenset(found)
