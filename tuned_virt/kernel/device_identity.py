# SPDX-License-Identifier: GPL-2.0-or-later
"""Which device a kernel file belongs to, beyond the device's name.

A device that the kernel adds gets an entry of its own in sysfs, whose inode number no other entry
has (fs/kernfs/dir.c, __kernfs_new_node). It lasts as long as the values of the device's files do:
through another medium or backing file, which changes diskseq, and through a new name, which network
interfaces can get. A device that is removed and added again has a new entry, even if it is the same
hardware (the same wwid) under the same name, and its files have new values, as after a boot.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.kernel.files import KernelFS

Entries = Mapping[str, int]
"""Inode number by name of a folder's devices."""

BLOCK = "/sys/class/block"
"""Disks and their partitions."""

NETWORK = "/sys/class/net"

SYSCTL = re.compile(r"/proc/sys/net/ipv[46]/(?:conf|neigh)$")
"""Folders with sysctls by network interface."""

CPUS = ("/sys/devices/system/", "/sys/bus/cpu/", "/sys/bus/node/", "/sys/bus/memory/")
"""What the firmware numbers: these names do not pass to others, and a CPU that was offline is the
same one."""

NAMED = re.compile(
    r"(/sys/(?:block|class/[^/]+|bus/[^/]+/devices)|/proc/sys/net/ipv[46]/(?:conf|neigh))/[^/]+/"
)
KEPT = re.compile(r"(?P<device>/[^#]*)#(?P<entry>\d+)(?P<file>/.*)")


@dataclass(frozen=True)
class DeviceFile:
    """A kernel file, and the device that it belongs to.

    device  the device's folder, "" where the file belongs to none
    entry   the number of the device's entry, 0 where only its name is known
    file    the rest of the path; all of it where there is no device
    """

    device: str
    entry: int
    file: str

    @property
    def path(self) -> str:
        """Where the kernel has the file under the device's present name."""
        return self.device + self.file

    @property
    def name(self) -> str:
        """The device's."""
        return self.device.rpartition("/")[2]

    def __str__(self) -> str:
        """As a setting: /sys/block/sda#6929/queue/read_ahead_kb."""
        return f"{self.device}#{self.entry}{self.file}" if self.entry else self.path


def parse(setting: str) -> DeviceFile:
    """A file as `str` has written it; one that was kept without its device's entry has none."""
    found = KEPT.fullmatch(setting)
    if found is None:
        return DeviceFile("", 0, setting)
    return DeviceFile(found["device"], int(found["entry"]), found["file"])


def located(kept: DeviceFile, there: Entries) -> DeviceFile | None:
    """The file of the same device as it is named now, None where the device is gone."""
    if not kept.entry or there.get(kept.name) == kept.entry:
        return kept
    name = next((name for name, entry in there.items() if entry == kept.entry), "")
    if not name:
        return None
    return replace(kept, device=f"{kept.device.rpartition('/')[0]}/{name}")


def why_gone(name: str, there: Container[str]) -> str:
    """What has become of a device that is not there any more."""
    if name in there:
        return f"{name} is another device now: it was removed and added since"
    return f"{name} no longer exists"


class DeviceReader:
    """Reads entries of devices, those of each folder once."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._read: dict[str, Entries] = {}

    def entries(self, folder: str) -> Entries:
        """Those that say which devices a folder has. Raises KernelFileError."""
        source = NETWORK if SYSCTL.match(folder) else folder
        if source not in self._read:
            self._read[source] = self._fs.entries(source)
        return self._read[source]

    def beside(self, kept: DeviceFile) -> Entries:
        """The entries among which a kept file's device would be. Raises KernelFileError."""
        return self.entries(kept.device.rpartition("/")[0]) if kept.entry else {}

    def identify(self, path: str) -> DeviceFile:
        """A file with its device. Raises KernelFileError."""
        device = self._device(path)
        folder, _, name = device.rpartition("/")
        entry = self.entries(folder).get(name, 0) if device else 0
        return DeviceFile(device, entry, path[len(device) :]) if entry else DeviceFile("", 0, path)

    def disk(self, node: str) -> int:
        """The entry of the disk, or partition, at a path of /dev; 0 where there is none.

        Raises KernelFileError.
        """
        number = self._fs.device_number(node)
        link = self._fs.link(f"/sys/dev/block/{number}") if number else None
        return self.entries(BLOCK).get((link or "").rpartition("/")[2], 0)

    def _device(self, path: str) -> str:
        """The folder of the device nearest above a file, "" where there is none."""
        if path.startswith(CPUS):
            return ""
        named = NAMED.match(path)
        if named:
            return named[0][:-1]
        folder = path.rpartition("/")[0]
        while folder.startswith("/sys/devices/"):
            if self._fs.exists(f"{folder}/uevent"):
                return folder
            folder = folder.rpartition("/")[0]
        return ""
