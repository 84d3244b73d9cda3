# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices, disks or guests, a section of a profile is for, by TuneD's rules."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping, Sequence


def check(regex: str) -> None:
    """Raises re.error for what is no regular expression."""
    re.compile(regex, re.MULTILINE)


def matches(expression: str, name: str, above: Iterable[str] = ()) -> bool:
    """Whether TuneD's device expression ("sd* !sdb") selects a device.

    Without a positive pattern all are. A disk is also selected by the name of what is made of it
    (`above`: dm-0, md0, nvme0n1), but excluded by its own name alone. "/" in names is "!" in sysfs.
    """
    positive, negative = _patterns(expression)
    if any(fnmatch.fnmatchcase(name, rule) for rule in negative):
        return False
    return any(fnmatch.fnmatchcase(one, rule) for one in (name, *above) for rule in positive)


@functools.lru_cache(maxsize=64)
def _patterns(expression: str) -> tuple[Sequence[str], Sequence[str]]:
    """Those that select, and those that exclude."""
    rules = expression.replace(",", " ").replace("/", "!").split()
    positive = [rule for rule in rules if not rule.startswith("!")]
    return positive or ["*"], [rule[1:] for rule in rules if rule.startswith("!")]


def matches_udev(regex: str, properties: Mapping[str, str]) -> bool:
    """Whether a regular expression is found in a disk's udev properties, a line each, sorted."""
    text = "".join(f"{name}={value}\n" for name, value in sorted(properties.items()))
    return re.search(regex, text, re.MULTILINE) is not None
