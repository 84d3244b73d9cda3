# SPDX-License-Identifier: GPL-2.0-or-later
"""What a profile may ask of guests' block I/O weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tuned_virt.core import options as opt
from tuned_virt.core.options import BadOptions, Number, OptionError, OptionSpec, Section
from tuned_virt.frozen_dataclasses import dataclass, field

WEIGHT = Number(10, 1000)
"""libvirt's range since kernel 2.6.39 (formatdomain, blkiotune)."""

REMOVE = 0
"""A device's weight that takes it out of the guest's list (virsh, blkiotune)."""

OPTIONS: Mapping[str, OptionSpec] = {
    "blkio_weight": OptionSpec(
        "I/O weight of each guest, 10 to 1000; libvirt's default is 100 or 500"
    ),
    "device_weights": OptionSpec(
        "I/O weights on single disks of the host, in the form of virsh blkiotune:"
        " /dev/sda,500,/dev/sdb,200; 0 removes a disk's weight"
    ),
    "observe": opt.OBSERVE,
}


@dataclass(frozen=True)
class WeightRule:
    """One section: its guests, as TuneD selects devices, and their weights."""

    name: str = ""
    guests: str = ""
    weight: int | None = None
    devices: Mapping[str, int] = field(default_factory=dict)

    @property
    def acts(self) -> bool:
        """Whether it asks for anything."""
        return self.weight is not None or bool(self.devices)


@dataclass(frozen=True)
class WeightPolicy:
    """The sections; the first that names a guest decides on it."""

    rules: tuple[WeightRule, ...] = ()


def parse(options: Mapping[str, str]) -> WeightPolicy:
    """The policy of one section for all guests. Raises BadOptions."""
    return parse_sections([Section("", options)])


def parse_sections(
    sections: Sequence[Section], conflicting: Sequence[Section] = ()
) -> WeightPolicy:
    """The policy of a profile's sections. Raises BadOptions, naming all that is wrong."""
    errors: list[OptionError] = []
    rules = tuple(_rule(section, errors) for section in sections)
    if errors:
        raise BadOptions(errors)
    return WeightPolicy(rules if any(rule.acts for rule in rules) else ())


def _rule(section: Section, errors: list[OptionError]) -> WeightRule:
    given = opt.given(section.options)
    if section.udev_regex:
        valid = "devices=, with names or UUIDs of guests: guests have no udev properties"
        errors.append(OptionError("devices_udev_regex", section.udev_regex, valid))
    values, bad = opt.parsed(given, {"blkio_weight": WEIGHT.plain, "device_weights": _devices})
    errors += bad
    weights = (values.get("blkio_weight"), values.get("device_weights", {}))
    return WeightRule(section.name, section.devices, *weights)


def _devices(option: str, text: str) -> dict[str, int]:
    """Raises OptionError."""
    words = [word.strip() for word in text.split(",")]
    pairs = list(zip(words[::2], words[1::2]))
    valid = "/path/of/disk,weight,/path/of/disk,weight with weights from 10 to 1000, or 0"
    named = all(re.fullmatch(r"/dev/[^\s,]+", path) for path, _ in pairs)
    if len(words) % 2 or not named or any(".." in path.split("/") for path, _ in pairs):
        raise OptionError(option, text, valid)
    return {
        path: REMOVE if weight == "0" else WEIGHT.plain(option, weight) for path, weight in pairs
    }
