# SPDX-License-Identifier: GPL-2.0-or-later
"""udev rules about schedulers: those that others have written, and ours for what must hold at boot.

`elevator=` on the command line does nothing since kernel 5.0 (block/elevator.c); what a disk is to
have before TuneD starts is for udev to set. udev evaluates far more than is read here: a rule
counts as setting a disk if its KERNEL patterns fit the name, and as the disk's owner only if the
disk has had that scheduler before us.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.blk_elevator_virt.classify import Attachment
from tuned_virt.plugins.blk_elevator_virt.planner import SetByUdev, Verdict
from tuned_virt.plugins.blk_elevator_virt.policy import QUEUES
from tuned_virt.plugins.blk_elevator_virt.state import HIDDEN

ADMINISTRATORS = ("/etc/udev/rules.d", "/run/udev/rules.d")
FOLDERS = (*ADMINISTRATORS, "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d")
"""From the highest precedence down: a file hides one of its name in a later folder (udev(7))."""

OURS = "# tuned-virt-plus: "
"""First words of a file that `tuned-virt disks --udev-rule` has written."""

FILE = "/etc/udev/rules.d/61-tuned-virt-disks.rules"
"""After 60-persistent-storage.rules, which finds the names that some of our rules match."""


@dataclass(frozen=True)
class RuleLine:
    """A rule that sets a scheduler."""

    place: str
    scheduler: str
    names: tuple[str, ...]
    excluded: tuple[str, ...]
    administrators: bool

    def fits(self, name: str) -> bool:
        """Whether its patterns of kernel names fit a disk's."""
        return any(fnmatch.fnmatchcase(name, one) for one in self.names) and not any(
            fnmatch.fnmatchcase(name, one) for one in self.excluded
        )


def lines(path: str, text: str) -> list[RuleLine]:
    """The rules of a file that set a scheduler; none for a file of ours."""
    if text.startswith(OURS):
        return []
    found = []
    joined = re.sub(r"\\\n", "  ", text)
    for number, line in enumerate(joined.splitlines(), start=1):
        sets = re.search(r'ATTR\{queue/scheduler\}\s*=\s*"([^"]+)"', line)
        if sets and not line.lstrip().startswith("#"):
            found.append(
                RuleLine(
                    place=f"{path}:{number}",
                    scheduler=sets[1],
                    names=_patterns(line, "==") or ("*",),
                    excluded=_patterns(line, "!="),
                    administrators=path.startswith(ADMINISTRATORS),
                )
            )
    return found


def _patterns(line: str, operator: str) -> tuple[str, ...]:
    found = re.search(rf'\bKERNEL\s*{operator}\s*"([^"]*)"', line)
    return tuple(found[1].split("|")) if found else ()


class RuleReader:
    """Reads the rules again and again; a file that has not changed is read once."""

    def __init__(self, fs: KernelFS) -> None:
        self._fs = fs
        self._known: dict[tuple[str, int], list[RuleLine]] = {}

    def read(self) -> list[RuleLine]:
        """All rules that set a scheduler, in udev's order."""
        files: dict[str, str] = {}
        for folder in FOLDERS:
            for name in self._fs.names(folder):
                if name.endswith(".rules"):
                    files.setdefault(name, f"{folder}/{name}")
        now = {(path, self._fs.changed(path)): path for _, path in sorted(files.items())}
        self._known = {
            key: self._known[key]
            if key in self._known
            else lines(path, self._fs.read_optional(path) or "")
            for key, path in now.items()
        }
        return [line for found in self._known.values() for line in found]


def by_disk(rules: Iterable[RuleLine], names: Iterable[str]) -> dict[str, tuple[SetByUdev, ...]]:
    """The rules that may set each disk, by name; disks without any are left out."""
    rules = list(rules)
    if not rules:
        return {}
    found = {
        name: tuple(
            SetByUdev(rule.place, rule.scheduler, rule.administrators)
            for rule in rules
            if rule.fits(name)
        )
        for name in names
    }
    return {name: fitting for name, fitting in found.items() if fitting}


# --- ours -----------------------------------------------------------------------------------

BY_CLASS: Mapping[Attachment, str] = {
    Attachment.VIRTIO_BLK: 'DEVPATH=="*/virtio[0-9]*/block/*"',
    Attachment.VIRTIO_SCSI: 'DEVPATH=="*/virtio[0-9]*/host[0-9]*/*", ATTRS{vendor}=="VENDOR"',
    Attachment.LUN: 'DEVPATH=="*/virtio[0-9]*/host[0-9]*/*", ATTRS{vendor}=="VENDOR"',
    Attachment.HYPERV: 'KERNEL=="sd*", DRIVERS=="hv_storvsc"',
    Attachment.ISCSI: 'DEVPATH=="*/host[0-9]*/session[0-9]*/*"',
    Attachment.ATA: 'DEVPATH=="*/ata[0-9]*/host[0-9]*/*"',
    Attachment.USB: 'DEVPATH=="*/usb[0-9]*/host[0-9]*/*"',
    Attachment.HBA: 'KERNEL=="sd*", DRIVERS=="DRIVER"',
    Attachment.NVME: 'KERNEL=="nvme[0-9]*"',
    Attachment.NVME_FABRICS: 'KERNEL=="nvme[0-9]*"',
    Attachment.MULTIPATH: 'KERNEL=="dm-*", ENV{DM_UUID}=="mpath-*"',
    Attachment.MMC: 'KERNEL=="mmcblk[0-9]*"',
    Attachment.XEN: 'DEVPATH=="*/vbd-[0-9]*/block/*"',
    Attachment.LOOP: 'KERNEL=="loop[0-9]*"',
}
"""What udev matches for a class of disks, where the class alone decides."""

IDENTITIES = ("DM_UUID", "ID_WWN_WITH_EXTENSION", "ID_WWN", "ID_SERIAL", "ID_PATH")
"""udev's names for one disk, the most lasting first; KERNEL names change from boot to boot."""

ONE_BY_ONE = ("host_backing", "host_other")
"""Options that decide by what a disk is used for: such disks are named one by one."""

ONE_QUEUE, MORE_QUEUES = 'TEST!="mq/1"', 'TEST=="mq/1"'
"""The kernel's folder of a disk's second hardware queue."""


def rule_file(
    verdicts: Sequence[Verdict],
    properties: Callable[[str], Mapping[str, str]],
    release: str,
) -> str:
    """A udev rules file that sets at boot what the verdicts set; `properties` are udev's."""
    rules = dict.fromkeys(
        rule for verdict in verdicts if verdict.claimed for rule in _rules(verdict, properties)
    )
    return "\n".join(
        (
            f"{OURS}I/O schedulers at boot, as [blk_elevator_virt] sets them later.",
            "# Generated by tuned-virt disks --udev-rule; generate it again when disks"
            " or the profile change.",
            *(rules or ["# No disk of this machine needs a rule."]),
            *_elevator(verdicts, release),
            "",
        )
    )


def _rules(verdict: Verdict, properties: Callable[[str], Mapping[str, str]]) -> Iterator[str]:
    disk = verdict.disk
    if HIDDEN.fullmatch(disk.name):
        yield f"# {disk.name}: set by TuneD only: udev has no events for a multipath head's paths"
        return
    match = BY_CLASS.get(disk.attached.kind, "")
    if verdict.option in ONE_BY_ONE or not match:
        match = _identity(disk.name, properties(disk.name))
        yield _rule(f"# {disk.name}: {_comment(verdict.why)}", match, verdict.wanted)
        return
    udev = properties(disk.name)
    match = match.replace("VENDOR", _glob(udev.get("ID_VENDOR", "")) + "*")
    match = match.replace('"DRIVER"', f'"{_glob(disk.attached.driver) or "?*"}"')
    comment = f"# {disk.attached.kind.value}: {verdict.option}={verdict.word}"
    if verdict.word == QUEUES:
        several = "noop" if "noop" in disk.offered else "none"
        yield _rule(f"{comment}, several queues", f"{match}, {MORE_QUEUES}", several)
        one = "deadline" if "deadline" in disk.offered else "mq-deadline"
        yield _rule(f"{comment}, one queue", f"{match}, {ONE_QUEUE}", one)
    else:
        yield _rule(comment, match, verdict.wanted)


def _rule(comment: str, match: str, scheduler: str) -> str:
    actions = "add|change" if "DM_UUID" in match else "add"  # dm devices are complete at a change
    head = f'ACTION=="{actions}", SUBSYSTEM=="block", ENV{{DEVTYPE}}=="disk"'
    return f'{comment}\n{head}, {match}, ATTR{{queue/scheduler}}="{scheduler}"'


def _identity(name: str, properties: Mapping[str, str]) -> str:
    for key in IDENTITIES:
        if properties.get(key):
            return f'ENV{{{key}}}=="{_glob(properties[key])}"'
    return f'KERNEL=="{_glob(name)}"'


def _glob(text: str) -> str:
    """Text of a disk's in a pattern: what udev or a shell reads otherwise matches any letter."""
    return re.sub(r"[^\w.:+@/=-]", "?", text, flags=re.ASCII)


def _comment(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _elevator(verdicts: Iterable[Verdict], release: str) -> Iterator[str]:
    """On a kernel that still knows elevator=, the section for TuneD's bootloader plugin."""
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    wanted = [verdict.wanted for verdict in verdicts if verdict.claimed]
    legacy = any("noop" in verdict.disk.offered for verdict in verdicts)
    if version < (5, 0) and wanted and legacy:
        most = max(sorted(set(wanted)), key=wanted.count)
        yield "# This kernel also takes one scheduler for all disks from its command line: put"
        yield "# this section into a profile of yours that includes the one in use:"
        yield "#     [bootloader]"
        yield f"#     cmdline_disks=+elevator={most}"
