# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator may write for an option, and the one clear error for anything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from tuned_virt.frozen_dataclasses import dataclass


class OptionError(ValueError):
    """A bad option: which, what was written, and what would be valid."""

    def __init__(self, option: str, value: str, valid: str) -> None:
        self.option = option
        self.value = value
        self.valid = valid
        super().__init__(f"option '{option}': '{value}' is not valid: {valid}")


class BadOptions(ValueError):
    """All that is wrong with a set of options; none of them is applied."""

    def __init__(self, errors: list[OptionError]) -> None:
        self.errors = errors
        super().__init__("; ".join(map(str, errors)))


FEW = 15
"""Options that an error lists; of more a manual page has to."""


def no_such(option: str, value: str, known: Iterable[str], manual: str) -> OptionError:
    """The error of an option that there is not: what it may have been meant to be, or all."""
    from difflib import get_close_matches  # takes time to import

    names = sorted(known)
    alike = get_close_matches(option, names)
    if alike:
        valid = f"did you mean {' or '.join(alike)}? All are in {manual}"
    elif len(names) <= FEW:
        valid = f"use one of {', '.join(names)}"
    else:
        valid = f"all are in {manual}"
    return OptionError(option, value, f"there is no such option; {valid}")


class Modifier(str, Enum):
    """TuneD's assignment modifiers, relative to the value before tuning."""

    EXACTLY = ""
    AT_LEAST = ">"
    AT_MOST = "<"


@dataclass(frozen=True)
class WantedValue:
    """A number to set, outright or only where it raises (>) or lowers (<) the original."""

    value: int
    modifier: Modifier = Modifier.EXACTLY

    def against(self, original: str) -> str:
        """The value to set, given the value before tuning."""
        if self.modifier is Modifier.EXACTLY or not re.fullmatch(r"-?\d+", original):
            return str(self.value)
        choose = max if self.modifier is Modifier.AT_LEAST else min
        return str(choose(self.value, int(original)))


@dataclass(frozen=True)
class Number:
    """A whole number from `minimum` to `maximum`, in `unit`."""

    minimum: int
    maximum: int
    unit: str = ""

    @property
    def valid(self) -> str:
        """What may be written, for messages and hints."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"a whole number from {self.minimum} to {self.maximum}{unit}"

    def parse(self, option: str, text: str) -> WantedValue:
        """Raises OptionError."""
        found = re.fullmatch(r"([<>]?)\s*(-?\d{1,19})", text, re.ASCII)
        if not found or not self.minimum <= int(found.group(2)) <= self.maximum:
            raise OptionError(option, text, self.valid)
        return WantedValue(int(found.group(2)), Modifier(found.group(1)))

    def plain(self, option: str, text: str) -> int:
        """A number that no modifier may precede. Raises OptionError."""
        wanted = self.parse(option, text)
        if wanted.modifier is not Modifier.EXACTLY:
            raise OptionError(option, text, self.valid)
        return wanted.value


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def valid(self) -> str:
        """What may be written, for messages and hints."""
        return f"one of {', '.join(self.words)}"

    def parse(self, option: str, text: str) -> str:
        """Raises OptionError."""
        if text not in self.words:
            raise OptionError(option, text, self.valid)
        return text


YES = ("1", "yes", "true", "on")
NO = ("0", "no", "false", "off")


def is_yes(option: str, text: str) -> bool:
    """A switch, in any of the spellings administrators use. Raises OptionError."""
    if text.lower() in YES:
        return True
    if text.lower() in NO:
        return False
    raise OptionError(option, text, "1 or 0 (yes, no, true, false, on, off)")


@dataclass(frozen=True)
class OptionSpec:
    """An option as TuneD and the manuals show it: its meaning and default (None: left alone).

    refines  the option that this one refines for some guests: a section that sets that one itself
             takes no such refinement from its settings file
    """

    hint: str
    default: str | None = None
    refines: str = ""


GROUP = "GUESTS"
"""Ends the name of an option that is given for groups of guests: policy.GUESTS for policy.db*."""


def template(name: str) -> str:
    """The name under which an option is known: policy.GUESTS for policy.db*."""
    option, dot, group = name.partition(".")
    return f"{option}.{GROUP}" if dot and group else name


NO_NAMES = ("all", "none", *YES, *NO)
"""What nobody calls a guest or a disk, and means otherwise; all[l] names one that is called so."""


def names(option: str, text: str) -> str:
    """An option that names guests or disks, as TuneD selects devices. Raises OptionError."""
    quoted = any(word[0] in "\"'" or word[-1] in "\"'" for word in text.split())
    wrong = not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text
    if quoted or wrong or text.lower() in NO_NAMES:
        valid = (
            "names, patterns or UUIDs, separated by spaces, such as db* !db-test; * for all,"
            " empty for none"
        )
        raise OptionError(option, text, valid)
    return text


SYSTEM = "qemu:///system"
"""libvirt's URI for the guests of this machine."""

URI = re.compile(r"[a-z+]+://\S{0,400}", re.ASCII)


def uri(option: str, text: str) -> str:
    """An option that names a libvirt. Raises OptionError."""
    if not URI.fullmatch(text):
        raise OptionError(option, text, f"a libvirt URI such as {SYSTEM}")
    return text


OBSERVE = OptionSpec("1: plan, log and verify what would be set, and change nothing", "0")


@dataclass(frozen=True)
class Section:
    """A section of a profile: its name, its options, and the devices that it is for.

    `devices` and `udev_regex` are as TuneD has them; both "" for all devices.
    """

    name: str
    options: Mapping[str, str]
    devices: str = ""
    udev_regex: str = ""


def given(options: Mapping[str, str | None]) -> dict[str, str]:
    """The options that say something: neither None nor empty."""
    return {name: text.strip() for name, text in options.items() if text and text.strip()}


def parsed(
    texts: Mapping[str, str], readers: Mapping[str, Callable[[str, str], Any]]
) -> tuple[dict[str, Any], list[OptionError]]:
    """Values of the options that have a reader, by name, and what is wrong with others."""
    values, errors = {}, []
    for name, text in texts.items():
        try:
            if name in readers:
                values[name] = readers[name](name, text)
        except OptionError as error:
            errors.append(error)
    return values, errors
