# SPDX-License-Identifier: GPL-2.0-or-later
"""What a profile may ask of disks: the options, and the policy that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from tuned_virt.core import device_filter
from tuned_virt.core import options as opt
from tuned_virt.core.options import BadOptions, OneOf, OptionError, OptionSpec, Section
from tuned_virt.frozen_dataclasses import dataclass, field


class MachineRole(str, Enum):
    """Whose disks these are."""

    AUTO = "auto"
    HOST = "host"
    GUEST = "guest"
    BOTH = "both"


KEEP = "keep"
QUEUES = "queues"

SCHEDULERS = ("none", "mq-deadline", "kyber", "bfq", "noop", "deadline", "cfq")
"""The kernel's, and those before 5.0 that the guides still name."""

WORDS = OneOf((KEEP, QUEUES, *SCHEDULERS))

ALIASES = (("none", "noop"), ("mq-deadline", "deadline"), ("bfq", "cfq"))
"""Names of the same, since 5.0 and before."""

ROLES = OneOf(tuple(role.value for role in MachineRole))

CLASSES: Mapping[str, OptionSpec] = {
    "host_backing": OptionSpec(
        "on hosts: the scheduler of SCSI and SATA disks that back defined or running guests",
        "mq-deadline",
    ),
    "host_nvme": OptionSpec("on hosts: the scheduler of NVMe disks", KEEP),
    "host_other": OptionSpec("on hosts: the scheduler of all other disks", KEEP),
    "guest_virtio": OptionSpec(
        "in guests: the scheduler of paravirtual disks: virtio, Hyper-V's and Xen's; queues: none"
        " with several queues, mq-deadline with one",
        QUEUES,
    ),
    "guest_passthrough": OptionSpec(
        "in guests: the scheduler of iSCSI disks, multipath devices, and HBAs and LUNs of the host",
        "mq-deadline",
    ),
    "guest_nvme": OptionSpec("in guests: the scheduler of NVMe disks of any kind", KEEP),
    "guest_emulated": OptionSpec(
        "in guests: the scheduler of emulated SATA, IDE, USB and SCSI disks", "mq-deadline"
    ),
    "guest_other": OptionSpec("in guests: the scheduler of all other disks", KEEP),
}
"""Option of each class: a scheduler's name, queues, or keep. Sources of the defaults: the guide's
chapters 6 and 7; RHEL 8's and later guides for guests, RHEL 6's and 7's for hosts."""

OPTIONS: Mapping[str, OptionSpec] = {
    "role": OptionSpec(
        "the machine's role: host, guest, both; auto: as detected by"
        " systemd-detect-virt, both if a guest has libvirt",
        MachineRole.AUTO.value,
    ),
    **CLASSES,
    "observe": opt.OBSERVE,
}


@dataclass(frozen=True)
class SchedulerRule:
    """One section: its name, the disks that it is for, and the word by class's option."""

    name: str = ""
    role: MachineRole = MachineRole.AUTO
    words: Mapping[str, str] = field(default_factory=dict)
    devices: str = ""
    udev_regex: str = ""

    @property
    def acts(self) -> bool:
        """Whether it may set anything."""
        return any(word != KEEP for word in self.words.values())


@dataclass(frozen=True)
class DiskPolicy:
    """The sections, the first that names a disk decides on it; none asks for nothing.

    `conflicting` has, by disk, the scheduler that TuneD's own disk plugin sets in the same profile.
    """

    rules: tuple[SchedulerRule, ...] = ()
    conflicting: Mapping[str, str] = field(default_factory=dict)

    def asks_users(self, own: MachineRole) -> bool:
        """Whether a section has to know which disks back guests, on a machine of this role."""
        return any(
            rule.words.get("host_backing", KEEP) != rule.words.get("host_other", KEEP)
            and (own if rule.role is MachineRole.AUTO else rule.role) is not MachineRole.GUEST
            for rule in self.rules
        )


def parse(options: Mapping[str, str]) -> DiskPolicy:
    """The policy of one section for all disks. Raises BadOptions."""
    return parse_sections([Section("", options)], ())


def parse_sections(sections: Sequence[Section], conflicting: Iterable[Section]) -> DiskPolicy:
    """The policy of a profile's sections. Raises BadOptions, naming all that is wrong."""
    errors: list[OptionError] = []
    rules = tuple(_rule(section, errors) for section in sections)
    if errors:
        raise BadOptions(errors)
    elsewhere = {
        disk: text
        for section in conflicting
        for text in section.options.values()
        for disk in section.devices.split()
    }
    return DiskPolicy(rules if any(rule.acts for rule in rules) else (), elsewhere)


def defaults() -> DiskPolicy:
    """What a section without options asks for."""
    return parse({name: option.default or "" for name, option in OPTIONS.items()})


def _rule(section: Section, errors: list[OptionError]) -> SchedulerRule:
    readers = {"role": ROLES.parse, **dict.fromkeys(CLASSES, WORDS.parse)}
    given = opt.given(section.options)
    values, bad = opt.parsed({name: given[name] for name in readers if name in given}, readers)
    errors += bad
    role = MachineRole(values.pop("role", MachineRole.AUTO))
    words = {**dict.fromkeys(CLASSES, KEEP), **values}
    try:
        device_filter.check(section.udev_regex)
    except re.error as error:
        valid = f"a Python regular expression ({error})"
        errors.append(OptionError("devices_udev_regex", section.udev_regex, valid))
    return SchedulerRule(section.name, role, words, section.devices, section.udev_regex)


def resolve(word: str, queues: int, offered: Sequence[str]) -> str:
    """The scheduler that a word means for a queue: a name that it offers where there is one.

    Of several names of the same that are not offered, the one whose generation the queue is of: the
    kernel loads its module when it is written.
    """
    if word == QUEUES:
        word = "none" if queues > 1 else "mq-deadline"
    names = next((names for names in ALIASES if word in names), (word,))
    for name in names:
        if name in offered:
            return name
    return names[-1] if "noop" in offered and len(names) > 1 else names[0]


def same(one: str, other: str) -> bool:
    """Whether two names are of the same scheduler."""
    return one == other or any(one in names and other in names for names in ALIASES)
