# SPDX-License-Identifier: GPL-2.0-or-later
"""Which libvirt, which of its guests a `devices=` selects, and by what name TuneD knows them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from tuned_virt.core.options import OptionError

SYSTEM = "qemu:///system"
"""libvirt's URI for the guests of this machine."""

URI = re.compile(r"[a-z+]+://\S{0,400}", re.ASCII)

PLAIN = re.compile(r"[A-Za-z0-9_.+@-]{1,100}", re.ASCII)
"""Names that every generation of TuneD can be told over D-Bus and in `devices=`."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def uri(option: str, text: str) -> str:
    """An option that names a libvirt. Raises OptionError."""
    if not URI.fullmatch(text):
        raise OptionError(option, text, f"a libvirt URI such as {SYSTEM}")
    return text


def device(name: str, uuid: str) -> str:
    """What TuneD calls a guest: its name, or its UUID where TuneD could not be told the name.

    A name that looks like a UUID is another guest's at worst.
    """
    plain = PLAIN.fullmatch(name) and not UUID.fullmatch(name)
    return name if plain else uuid


def selects(expression: str | None, names: Iterable[str]) -> bool:
    """Whether a rule list such as "web*,!web3" selects a guest by any of its names.

    As TuneD's own matcher, and a guest that a negative rule names in any way is left out. None,
    which only a runtime instance without `devices=` has, selects none.
    """
    if expression is None:
        return False
    rules = [rule for rule in re.split(r"[\s,]+", expression) if rule]
    wanted = [rule for rule in rules if not rule.startswith("!")] or ["*"]
    unwanted = [rule[1:] for rule in rules if rule.startswith("!")]
    known = list(names)
    return _any(wanted, known) and not _any(unwanted, known)


def _any(rules: list[str], names: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, rule) for rule in rules for name in names)
