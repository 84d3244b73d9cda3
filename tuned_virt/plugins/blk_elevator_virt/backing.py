# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests' disks lie on: from their open files, and from the paths that libvirt names.

A running guest is asked of through /proc, which no dead file system holds up: what a descriptor
lies on is in its mount's line, not in the file. The paths of defined guests have to be looked at,
which hangs where such a file system is dead: that is bounded, and the last answer kept.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import FORBIDDEN, KernelFileError, KernelFS
from tuned_virt.model.guest import printable
from tuned_virt.plugins.blk_elevator_virt import state
from tuned_virt.plugins.blk_elevator_virt.classify import Attachment
from tuned_virt.plugins.blk_elevator_virt.file_systems import (
    FilesystemMount,
    FileSystems,
    mount_of,
    mounts,
)
from tuned_virt.plugins.blk_elevator_virt.storage import (
    NOWHERE,
    Storage,
    not_answered,
    not_followed,
    on_devices,
    on_network,
    together,
)
from tuned_virt.plugins.blk_elevator_virt.zfs import ZfsPools

STATE_FOLDERS = ("/dev/", "/proc/", "/run/", "/sys/", "/var/lib/libvirt/qemu/", "/var/log/")
"""Where QEMU's open files are no disks: its own state, logs, sockets."""

SILENT = not_answered("the file system of its disks does not answer")


class BackingDevices:
    """Follows guests' files to block devices, and those to disks."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._file_systems = FileSystems(fs, ZfsPools(fs))
        self._workers = KeyedWorkerPool("virt-disks-paths", threads=1, patience=timeouts.DISKS_READ)
        self._last: dict[str, Storage] = {}

    def look_again(self) -> None:
        """File systems may be on other devices by now."""
        self._file_systems.look_again()

    def of_process(self, pid: int) -> Storage:
        """The block devices that a process has open, and what its open files are on."""
        own = mounts(self._fs.read_permitted(f"/proc/{pid}/mountinfo") or "")
        return together({self._of_file(pid, number, own) for number in self._files(pid)})

    def _of_file(self, pid: int, number: str, own: Mapping[str, FilesystemMount]) -> Storage:
        path = self._fs.link(f"/proc/{pid}/fd/{number}") or ""
        if path.startswith("/dev/"):
            return on_devices([self._file_systems.device(path, f"/proc/{pid}/fd/{number}")])
        if not path.startswith("/") or path.startswith(STATE_FOLDERS):
            return NOWHERE
        info = self._fs.read_permitted(f"/proc/{pid}/fdinfo/{number}") or ""
        found = re.search(r"^mnt_id:\s*(\d+)", info, re.MULTILINE)
        mount = own.get(found[1]) if found else None
        return self._file_systems.under(mount) if mount else NOWHERE

    def _files(self, pid: int) -> list[str]:
        """Numbers of a process's open files; none where they are not for this process to see."""
        try:
            return self._fs.names(f"/proc/{pid}/fd")
        except KernelFileError as error:
            if error.code in FORBIDDEN:
                return []
            raise

    def of_paths(self, paths: Mapping[str, tuple[str, ...]]) -> dict[str, Storage]:
        """The same of paths, by guest; one that does not answer keeps its last answer."""
        own = list(mounts(self._fs.read_optional("/proc/self/mountinfo") or "").values())
        answers = self._workers.run(
            {guest: functools.partial(self._of_guest, named, own) for guest, named in paths.items()}
        )
        found = {guest: answers.get(guest, self._last.get(guest, SILENT)) for guest in paths}
        self._last.update(found)
        return found

    def _of_guest(self, paths: Iterable[str], own: list[FilesystemMount]) -> Storage:
        return together([self._of_path(path, own) for path in paths])

    def _of_path(self, path: str, own: list[FilesystemMount]) -> Storage:
        real = self._fs.resolved(path)
        if real.startswith("/dev/"):
            return self._of_node(path, real)
        mount = mount_of(real, own)
        return self._file_systems.under(mount) if mount else NOWHERE

    def _of_node(self, path: str, real: str) -> Storage:
        device = self._file_systems.device(real, real)
        if device:
            return on_devices([device])
        what = "is no block device" if self._fs.exists(real) else "does not exist"
        return not_followed(f"{printable(path)} {what}")

    def queues(self, storage: Storage, disks: Mapping[str, state.Disk]) -> Storage:
        """The disks whose queues order what is sent to block devices, however many layers down."""
        found: set[str] = set()
        ends = [storage.elsewhere]
        waiting = set(storage.devices)
        seen: set[str] = set()
        while waiting:
            name = state.whole(self._fs, waiting.pop())
            disk = disks.get(name)
            if disk is None or name in seen:
                continue
            seen.add(name)
            below = self._below(disk)
            ends.append(below.elsewhere)
            waiting |= below.devices
            if disk.offered:
                found.add(name)
            else:
                waiting.update(disk.slaves)
        return together([on_devices(found), *ends])

    def _below(self, disk: state.Disk) -> Storage:
        """What a device is on that sysfs does not call its slaves."""
        kind = disk.attached.kind
        if kind is Attachment.LOOP:
            return self._below_loop(disk.name)
        if kind is Attachment.ZVOL:
            return self._file_systems.volume(disk.name)
        if kind is Attachment.DRBD and not disk.slaves:
            return on_network("DRBD's peers")
        return NOWHERE

    def _below_loop(self, name: str) -> Storage:
        file = self._fs.read_optional(f"/sys/block/{name}/loop/backing_file")
        return self.of_paths({f"loop:{name}": (file,)})[f"loop:{name}"] if file else NOWHERE
