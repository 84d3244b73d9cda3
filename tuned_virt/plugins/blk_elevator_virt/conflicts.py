# SPDX-License-Identifier: GPL-2.0-or-later
"""Others who set schedulers: udev's rules, systemd's units, tmpfiles.d, sysfsutils, rc.local, cron.

They are read, never run, with the conditions that they name. What cannot be known of a condition
lets it count as one that may hold: such a setting is the disk's owner only if the disk had it.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import shell_writes, udev_rules
from tuned_virt.kernel.block_device import BlockDevice
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.blk_elevator_virt import boot_files
from tuned_virt.plugins.blk_elevator_virt.planner import SetElsewhere
from tuned_virt.plugins.blk_elevator_virt.state import HIDDEN, SILENT, Disk, sysfs_path
from tuned_virt.plugins.blk_elevator_virt.udev_rules import OURS

ADMINISTRATORS = ("/etc/", "/run/", "/var/spool/cron/")
"""Where settings are an administrator's; elsewhere they are the distribution's."""

SCHEDULER = "queue/scheduler"

OF_WHOLE_DISK = f"../{SCHEDULER}"
"""How a rule about a partition names it: what a partition has decides on the disk (ZFS's members).
"""

EVENTS = ("add", "change")
"""What udev has told of a disk that is there."""


@dataclass(frozen=True)
class RuleFile:
    """A file of udev rules in which some rule may set a scheduler."""

    path: str
    text: str


@dataclass(frozen=True)
class Others:
    """All that may set schedulers on this machine."""

    rules: tuple[RuleFile, ...] = ()
    at_boot: tuple[boot_files.BootSetting, ...] = ()


class OthersReader:
    """Reads them again and again; a file that has not changed is read once."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._known: dict[tuple[str, int], RuleFile | None] = {}

    def read(self) -> Others:
        """What there is now, in the order in which it is done. Raises KernelFileError."""
        now = {(path, self._fs.changed(path)): path for path in udev_rules.paths(self._fs)}
        self._known = {
            key: self._known[key] if key in self._known else self._rules(path)
            for key, path in now.items()
        }
        found = tuple(one for one in self._known.values() if one)
        return Others(found, tuple(boot_files.settings(self._fs)))

    def _rules(self, path: str) -> RuleFile | None:
        text = boot_files.read(self._fs, path)
        if text.startswith(OURS) or not ("scheduler" in text or self._runs_a_script(text)):
            return None
        return RuleFile(path, text)

    def _runs_a_script(self, text: str) -> bool:
        programs = (
            udev_rules.command(value)
            for _, tokens in udev_rules.lines(text)
            for key, _, _, value in tokens
            if key == "RUN"
        )
        return any(
            SCHEDULER in script
            for program in programs
            for script in boot_files.scripts(self._fs, program)
        )


def by_disk(
    fs: KernelFS, others: Others, disks: Iterable[Disk]
) -> Mapping[str, tuple[SetElsewhere, ...]]:
    """Who else may set each disk, by name, in the order in which it is done."""
    found = {
        disk.name: (*_by_udev(fs, others.rules, disk), *_at_boot(fs, others.at_boot, disk))
        for disk in disks
        if disk.offered and (others.rules or others.at_boot)
    }
    return {name: settings for name, settings in found.items() if settings}


def _by_udev(fs: KernelFS, files: Iterable[RuleFile], disk: Disk) -> Iterator[SetElsewhere]:
    if HIDDEN.fullmatch(disk.name):
        return  # the kernel tells udev nothing of it
    path = sysfs_path(fs, disk.name)
    devices = [_devices(fs, path, disk.trouble == SILENT, event, files) for event in EVENTS]
    found = (
        SetElsewhere(f"{file.path}:{rule.number}", scheduler, file.path.startswith(ADMINISTRATORS))
        for device in itertools.chain.from_iterable(devices)
        for file in files
        for rule in udev_rules.applying(fs, file.text, device)
        for scheduler in _scheduler(fs, rule, device, disk.name, path)
    )
    yield from dict.fromkeys(found)


def _devices(
    fs: KernelFS, path: str, silent: bool, event: str, files: Iterable[RuleFile]
) -> Iterator[BlockDevice]:
    """The disk, and its partitions where a rule about one can set the disk's scheduler."""
    yield BlockDevice(fs, path, event, silent)
    if any(OF_WHOLE_DISK in file.text for file in files):
        for name in sorted(fs.names(path)):
            if fs.exists(f"{path}/{name}/partition"):
                yield BlockDevice(fs, f"{path}/{name}", event, silent, "partition")


def _scheduler(
    fs: KernelFS, rule: udev_rules.Applied, device: BlockDevice, name: str, path: str
) -> Iterator[str]:
    """What a rule that applies to a device sets for a disk, itself or by a program."""
    for key, inner, operator, value in rule.tokens:
        if key == "ATTR" and operator in udev_rules.ASSIGNMENTS:
            if os.path.normpath(f"/sys{device.devpath}/{inner}") == f"{path}/{SCHEDULER}":
                yield device.substitute(value)
        elif key == "RUN" and operator in ("+=", *udev_rules.ASSIGNMENTS):
            command = udev_rules.command(device.substitute(value))
            for text in (command, *boot_files.scripts(fs, command)):
                for write in shell_writes.writes(text, SCHEDULER):
                    if _means(write.path, name, path):
                        yield write.value


def _at_boot(
    fs: KernelFS, settings: Iterable[boot_files.BootSetting], disk: Disk
) -> Iterator[SetElsewhere]:
    path = sysfs_path(fs, disk.name)
    for setting in settings:
        if _means(setting.path, disk.name, path):
            yield SetElsewhere(
                setting.place,
                setting.scheduler,
                setting.place.startswith(ADMINISTRATORS),
                setting.what,
                surely=setting.surely,
            )


def _means(pattern: str, name: str, path: str) -> bool:
    """Whether a path that somebody writes to is that of a disk's scheduler."""
    real = re.sub("/{2,}", "/", pattern)
    return any(
        fnmatch.fnmatchcase(f"{place}/{SCHEDULER}", real)
        for place in (f"/sys/block/{name}", f"/sys/class/block/{name}", path)
    )
