# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices, disks or guests, a section of a profile is for, by TuneD's rules."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping, Sequence

PLAIN = re.compile(r"[A-Za-z0-9_.+@-]{1,100}", re.ASCII)
"""Names that every generation of TuneD can be told over D-Bus and in `devices=`."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def device(name: str, uuid: str) -> str:
    """What TuneD calls a guest: its name, or its UUID where TuneD could not be told the name.

    A name that looks like a UUID is another guest's at worst.
    """
    plain = PLAIN.fullmatch(name) and not UUID.fullmatch(name)
    return name if plain else uuid


def selects(expression: str | None, names: Iterable[str], above: Iterable[str] = ()) -> bool:
    """Whether TuneD's device expression ("web*,!web3") selects a device by any of its names.

    Without a positive pattern all are; one that a negative pattern names in any way is not. A disk
    is also selected, but not excluded, by the name of what is made of it (`above`: dm-0, md0). "/"
    in names is "!" in sysfs. None, which only a runtime instance without `devices=` has, selects
    nothing.
    """
    if expression is None:
        return False
    wanted, unwanted = _patterns(expression)
    own = list(names)
    return _any(wanted, (*own, *above)) and not _any(unwanted, own)


@functools.lru_cache(maxsize=64)
def _patterns(expression: str) -> tuple[Sequence[str], Sequence[str]]:
    """Those that select, and those that exclude."""
    rules = expression.replace(",", " ").split()
    positive = [rule.replace("/", "!") for rule in rules if not rule.startswith("!")]
    negative = [rule[1:].replace("/", "!") for rule in rules if rule.startswith("!")]
    return positive or ["*"], negative


def _any(rules: Iterable[str], names: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, rule) for rule in rules for name in names)


def check(regex: str) -> None:
    """Raises re.error for what is no regular expression."""
    re.compile(regex, re.MULTILINE)


def matches_udev(regex: str, properties: Mapping[str, str]) -> bool:
    """Whether a regular expression is found in a disk's udev properties, a line each, sorted."""
    text = "".join(f"{name}={value}\n" for name, value in sorted(properties.items()))
    return re.search(regex, text, re.MULTILINE) is not None
