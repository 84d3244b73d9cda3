# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices, disks or guests, a section of a profile is for, by TuneD's rules."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping


def check(regex: str) -> None:
    """Raises re.error for what is no regular expression."""
    re.compile(regex, re.MULTILINE)


def matches(expression: str, name: str, above: Iterable[str] = ()) -> bool:
    """Whether TuneD's device expression ("sd* !sdb") selects a device.

    Without a positive pattern all are. A disk is also selected by the name of what is made of it
    (`above`: dm-0, md0, nvme0n1), but excluded by its own name alone. "/" in names is "!" in sysfs.
    """
    rules = expression.replace(",", " ").replace("/", "!").split()
    negative = [rule[1:] for rule in rules if rule.startswith("!")]
    positive = [rule for rule in rules if not rule.startswith("!")] or ["*"]
    if any(fnmatch.fnmatchcase(name, rule) for rule in negative):
        return False
    return any(fnmatch.fnmatchcase(one, rule) for one in (name, *above) for rule in positive)


def matches_udev(regex: str, properties: Mapping[str, str]) -> bool:
    """Whether a regular expression is found in a disk's udev properties, a line each, sorted."""
    text = "".join(f"{name}={value}\n" for name, value in sorted(properties.items()))
    return re.search(regex, text, re.MULTILINE) is not None
