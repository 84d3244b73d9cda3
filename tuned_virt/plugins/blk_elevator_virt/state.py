# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks as sysfs shows them. Each costs few reads, and one that does not answer is passed over.

Reading a queue's files waits while a scheduler's write waits there, which can be for ever: the
kernel holds one lock for both (block/blk-sysfs.c, queue_attr_show, up to 6.13).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping

from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.blk_elevator_virt.classify import (
    LAYERS,
    MADE_OF_DISKS,
    Attachment,
    DiskClass,
    DiskFacts,
    Pci,
    classify,
)

BLOCK = "/sys/block"

LIVE = ("", "running", "live")
"""What a SCSI disk or an NVMe controller says of itself when all is well; "" is said by others."""

SILENT = "no answer"
"""What is said of a disk that does not answer; what was known of it still holds."""

HIDDEN = re.compile(r"nvme(\d+)c\d+n(\d+)")
"""A path of an NVMe multipath head, nvme0c1n2 of nvme0n2."""

UNKNOWN = DiskClass(Attachment.OTHER, False, "")
"""How a disk is attached that is gone, or has never answered."""


@dataclass(frozen=True)
class Disk:
    """One block device.

    identity  the number of its entry in sysfs: this very disk's, not its name's (diskseq changes
              with a drive's medium and a loop device's file as well, and the queue does not)
    scheduler the active one, "" where there is nothing to choose
    offered   the schedulers to choose from
    queues    its hardware queues
    slaves    disks that it is made of
    trouble   why its queue must not be written to now, "" where it may
    """

    name: str
    attached: DiskClass
    identity: str = ""
    scheduler: str = ""
    offered: tuple[str, ...] = ()
    queues: int = 1
    slaves: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def key(self) -> str:
        """Name and identity, for settings."""
        return f"{self.name}#{self.identity}"


class DiskReader:
    """Reads disks again and again; what cannot change while a disk is there is read once."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._workers = KeyedWorkerPool("virt-disks-read", threads=1, patience=timeouts.DISKS_READ)
        self._known: dict[str, Disk] = {}

    def read(self) -> dict[str, Disk]:
        """All disks by name."""
        return self._all(self._disk)

    def look(self) -> dict[str, Disk]:
        """All disks by name; of those known before, only the scheduler is read again."""
        return self._all(self._glance)

    def _all(self, read: Callable[[str, str], Disk]) -> dict[str, Disk]:
        numbers = {name: str(number) for name, number in sorted(self._fs.entries(BLOCK).items())}
        found = self._workers.run(
            {name: functools.partial(read, name, number) for name, number in numbers.items()}
        )
        disks = {
            name: found[name] if name in found else self._silent(name, number)
            for name, number in numbers.items()
        }
        self._known = {
            name: disk for name, disk in disks.items() if disk.attached.fact or disk.trouble
        }
        return with_paths(self._known)

    def _silent(self, name: str, identity: str) -> Disk:
        disk = self._remembered(name, identity)
        return replace(disk or Disk(name, UNKNOWN, identity), trouble=SILENT)

    def _remembered(self, name: str, identity: str) -> Disk | None:
        disk = self._known.get(name)
        return disk if disk and disk.identity == identity else None

    def _glance(self, name: str, identity: str) -> Disk:
        disk = self._remembered(name, identity)
        if disk is None or disk.trouble:
            return self._disk(name, identity)
        offered, scheduler = self._schedulers(name)
        return replace(disk, scheduler=scheduler, offered=offered)

    def _disk(self, name: str, identity: str) -> Disk:
        disk = self._remembered(name, identity)
        if disk is None or disk.trouble:
            disk = self._stranger(name, identity)
        offered, scheduler = self._schedulers(name)
        queues = self._fs.folders(f"{BLOCK}/{name}/mq") or 1 if offered else 1
        slaves, trouble = self._slaves(disk), self._trouble(disk, offered)
        found = (scheduler, offered, queues, slaves, trouble)
        if found == (disk.scheduler, disk.offered, disk.queues, disk.slaves, disk.trouble):
            return disk
        return Disk(name, disk.attached, identity, *found)

    def _schedulers(self, name: str) -> tuple[tuple[str, ...], str]:
        return schedulers(self._fs.read_optional(f"{BLOCK}/{name}/queue/scheduler"))

    def _stranger(self, name: str, identity: str) -> Disk:
        path = sysfs_path(self._fs, name)
        if not path:
            return Disk(name, UNKNOWN, identity)  # gone meanwhile
        return Disk(name, classify(facts(self._fs, name, path)), identity)

    def _slaves(self, disk: Disk) -> tuple[str, ...]:
        if disk.attached.kind not in MADE_OF_DISKS:
            return ()
        below = self._fs.names(f"{BLOCK}/{disk.name}/slaves")
        return tuple(sorted({whole(self._fs, name) for name in below}))

    def _trouble(self, disk: Disk, offered: tuple[str, ...]) -> str:
        if not offered or disk.attached.kind is Attachment.LOOP:
            return ""
        folder = f"{BLOCK}/{disk.name}"
        if disk.attached.kind is Attachment.MULTIPATH:
            suspended = self._fs.read_optional(f"{folder}/dm/suspended")
            return "the device is suspended" if suspended == "1" else ""
        state = self._fs.read_optional(f"{folder}/device/state") or ""
        return "" if state in LIVE else f"the device is {state}"


def sysfs_path(fs: KernelFS, name: str) -> str:
    """Where sysfs has a disk, with all that it hangs from; "" once it is gone."""
    link = fs.link(f"{BLOCK}/{name}")
    return "/sys/" + link.lstrip("./") if link else ""


def schedulers(text: str | None) -> tuple[tuple[str, ...], str]:
    """What queue/scheduler offers and what is active; nothing where there is nothing to choose.

    A bare word ("none") is a device without a scheduler of its own.
    """
    words = (text or "").split()
    active = [word[1:-1] for word in words if word.startswith("[") and word.endswith("]")]
    if not active:
        return (), ""
    return tuple(word.strip("[]") for word in words), active[0]


def with_paths(disks: Mapping[str, Disk]) -> dict[str, Disk]:
    """The disks, with the hidden paths of each NVMe multipath head as what it is made of."""
    paths: dict[str, list[str]] = {}
    for name in disks:
        found = HIDDEN.fullmatch(name)
        if found:
            paths.setdefault(f"nvme{found[1]}n{found[2]}", []).append(name)
    return {
        name: replace(disk, slaves=tuple(paths[name])) if name in paths else disk
        for name, disk in disks.items()
    }


def facts(fs: KernelFS, name: str, path: str) -> DiskFacts:
    """What decides how a disk is attached; the files that its path calls for, no others."""
    if "/devices/virtual/block/" in path:
        is_dm = name.startswith("dm-")
        uuid = fs.read_optional(f"{BLOCK}/{name}/dm/uuid") if is_dm else ""
        return DiskFacts(name, path, dm_uuid=uuid or "")
    if "/nvme" in path:
        transport = fs.read_optional(f"{path.rpartition('/')[0]}/transport") or ""
        return DiskFacts(name, path, transport=transport, pci=pci(fs, path))
    host = re.search(r"(.*)/(host\d+)/", path)
    if host is None:
        return DiskFacts(name, path)
    return DiskFacts(
        name,
        path,
        proc_name=fs.read_optional(f"/sys/class/scsi_host/{host[2]}/proc_name") or "",
        driver=_driver(fs, host[1]),
        vendor=fs.read_optional(f"{BLOCK}/{name}/device/vendor") or "",
        model=fs.read_optional(f"{BLOCK}/{name}/device/model") or "",
        pci=pci(fs, path),
    )


def _driver(fs: KernelFS, path: str) -> str:
    """The driver of a device, or of the nearest one above it that has one."""
    while path.startswith("/sys/devices/"):
        link = fs.link(f"{path}/driver")
        if link:
            return link.rpartition("/")[2]
        path = path.rpartition("/")[0]
    return ""


def pci(fs: KernelFS, path: str) -> Pci:
    """The PCI function nearest to a disk; empty ids where there is none."""
    found = re.match(r"(.*/[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])/", path)
    if found is None:
        return Pci()
    names = ("vendor", "device", "subsystem_vendor")
    ids = (fs.read_optional(f"{found[1]}/{name}") or "" for name in names)
    driver = (fs.link(f"{found[1]}/driver") or "").rpartition("/")[2]
    return Pci(driver, *(text.removeprefix("0x") for text in ids))


def whole(fs: KernelFS, name: str) -> str:
    """The disk that a block device is, or is a partition of."""
    link = fs.link(f"/sys/class/block/{name}") or ""
    return link.split("/")[-2] if fs.exists(f"/sys/class/block/{name}/partition") else name


def above(disks: Mapping[str, Disk]) -> dict[str, frozenset[str]]:
    """By disk, all that is made of it, however many layers up."""
    direct: dict[str, set[str]] = {}
    for disk in disks.values():
        for slave in disk.slaves:
            direct.setdefault(slave, set()).add(disk.name)
    return {name: frozenset(_closure(name, direct)) for name in direct}


def _closure(name: str, direct: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(direct.get(name, ()))
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += direct.get(one, ())
    return found


def queues_of(name: str, disks: Mapping[str, Disk]) -> frozenset[str]:
    """The disks whose queues order a disk's requests: itself, or what it is made of.

    A layer with a scheduler of its own (request-based dm-multipath) sends requests past those of
    its paths (block/blk-mq.c, blk_insert_cloned_request), so it is not followed further.
    """
    below = {disk.name: disk.slaves for disk in disks.values() if not disk.offered}
    found = {name, *_closure(name, below)}
    return frozenset(one for one in found if one in disks and disks[one].offered)


def bypassed(disks: Mapping[str, Disk]) -> dict[str, str]:
    """Disks whose own schedulers no request sees, by name; and the layer that orders instead."""
    return {
        slave: disk.name
        for disk in disks.values()
        if disk.offered and disk.attached.kind is Attachment.MULTIPATH
        for slave in disk.slaves
    }


def is_layer(disk: Disk) -> bool:
    """Whether what lies below counts, as the disk has no scheduler of its own."""
    kinds = LAYERS | {Attachment.MULTIPATH}
    return not disk.offered and (disk.attached.kind in kinds or bool(disk.slaves))


def tunables(fs: KernelFS, name: str) -> dict[str, str]:
    """Values by name of what a change of a disk's scheduler resets: nr_requests and iosched/*."""
    queue = f"{BLOCK}/{name}/queue"
    files = ["nr_requests", *(f"iosched/{file}" for file in sorted(fs.names(f"{queue}/iosched")))]
    values = {file: fs.read_optional(f"{queue}/{file}") for file in files}
    return {file: text for file, text in values.items() if text is not None and text != ""}
