# SPDX-License-Identifier: GPL-2.0-or-later
"""udev's rules, gone through for one event of a device with their conditions, as udev(7).

What a rule asks of a program is not known here, but for the machine's architecture. A condition
that is not known neither rules a line out nor makes a jump: the line may apply, and so may those
after it, but none that the jump would pass over does so surely.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.files import KernelFS

FOLDERS = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)
"""From the highest precedence down: a file hides one of its name in a later folder."""

Token = tuple[str, str, str, str]
"""Key, what its braces hold, operator, value."""

Line = tuple[int, tuple[Token, ...]]
"""The number of a rule's first line, and its tokens."""

FILES_KEPT = 64
"""Files of which the lines are kept: few have rules about schedulers."""

TOKEN = re.compile(r'(\w+)(?:\{([^}]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*[ei]?"((?:\\"|[^"])*)"')
ARCHITECTURE = re.compile(r"(?:\S*/)?uname -[pm]")

CONDITIONS = ("==", "!=")
ASSIGNMENTS = ("=", ":=")
PROGRAMS = ("PROGRAM", "IMPORT")
"""Keys that are conditions whatever their operator."""

ABOVE = ("KERNELS", "SUBSYSTEMS", "DRIVERS", "ATTRS", "TAGS")
"""Keys that have to hold together for one device: the event's, or one above it."""


class Device(Protocol):
    """What rules are matched with, and for which their variables stand."""

    @property
    def machine(self) -> str:
        """The architecture as uname has it, "" where rules that ask for it are not known."""

    def matches(self, token: Token) -> bool | None:
        """Whether a condition holds; None where that is not known."""

    def matches_above(self, tokens: Sequence[Token]) -> bool | None:
        """Whether all hold for the device, or all for one above it."""

    def substitute(self, text: str) -> str:
        """A value with the variables that are known."""


@dataclass(frozen=True)
class NewDevice:
    """A device as its first event has it: what keys match, attributes, and the machine.

    above   attributes that a device above it has
    """

    keys: Mapping[str, str]
    attributes: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    above: Mapping[str, str] = field(default_factory=dict)

    def matches(self, token: Token) -> bool | None:
        """By the keys and attributes alone; what programs and tests say is taken for granted."""
        key, inner, _, _ = token
        if key in PROGRAMS or key == "TEST":
            return True
        if key == "ATTR":
            found = self.attributes.get(inner)
        elif key == "CONST" and inner == "arch":
            found = self.machine.replace("_", "-")
        else:
            found = self.keys.get(key)
        return None if found is None else fits(token, found)

    def matches_above(self, tokens: Sequence[Token]) -> bool | None:
        """As for the device itself: of what is above it a few attributes are known."""
        return together(self._matches_above(token) for token in tokens)

    def _matches_above(self, token: Token) -> bool | None:
        key, inner, operator, wanted = token
        if key == "ATTRS" and inner in self.above:
            return fits(token, self.above[inner])
        return self.matches((key[:-1], inner, operator, wanted))

    def substitute(self, text: str) -> str:
        """Nothing is known."""
        return text


@dataclass(frozen=True)
class Applied:
    """A rule that applies to a device, or may: the number of its first line, and what it says."""

    number: int
    tokens: tuple[Token, ...]
    surely: bool


def files(fs: KernelFS) -> Iterator[tuple[str, str]]:
    """Paths and texts of the rules, in udev's order. Raises KernelFileError."""
    for path in paths(fs):
        yield path, fs.read_optional(path) or ""


def paths(fs: KernelFS) -> list[str]:
    """Paths of the rules, in udev's order. Raises KernelFileError."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        for name in fs.names(folder):
            if name.endswith(".rules"):
                found.setdefault(name, f"{folder}/{name}")
    return [path for _, path in sorted(found.items())]


@functools.lru_cache(maxsize=FILES_KEPT)
def lines(text: str) -> tuple[Line, ...]:
    """A file's rules: the number of the line on which each begins, and its tokens.

    Kept, as each is asked about every disk.
    """
    return tuple(_lines(text))


def _lines(text: str) -> Iterator[Line]:
    begun, joined = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            continue
        begun = begun or number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield begun, tuple(TOKEN.findall(joined + line))
        begun, joined = 0, ""


def applying(fs: KernelFS, text: str, device: Device) -> Iterator[Applied]:
    """The rules of a file that apply to a device, or may."""
    going = _Pass(fs, device)
    passed_over = False
    waiting: set[str] = set()  # labels that udev may have jumped to already
    for number, tokens in lines(text):
        labels = waiting.intersection(_values(tokens, "LABEL"))
        waiting -= labels
        passed_over = passed_over and not labels
        holds = False if passed_over else going.holds(tokens)
        if holds is False:
            continue
        going.assign(tokens, surely=holds is True)
        yield Applied(number, tokens, surely=holds is True and not waiting)
        target = _values(tokens, "GOTO")[:1]
        waiting.update(target)
        passed_over = bool(target) and holds is True


def _values(tokens: Sequence[Token], key: str) -> list[str]:
    return [value for one, _, _, value in tokens if one == key]


def sets(fs: KernelFS, text: str, device: Device, attribute: str) -> bool:
    """Whether a file's rules surely set an attribute of the device, also by a program (RUN)."""
    return any(
        rule.surely and any(_assigns(token, attribute) for token in rule.tokens)
        for rule in applying(fs, text, device)
    )


def command(value: str) -> str:
    """A value of RUN as udev runs it: a program without a path is in /usr/lib/udev (udev(7))."""
    return f"/usr/lib/udev/{value}" if re.match(r"[\w.+-]+(?:\s|$)", value) else value


def fits(token: Token, found: str) -> bool:
    """Whether a value is as a condition wants it."""
    _, _, operator, wanted = token
    matched = any(fnmatch.fnmatchcase(found, one) for one in wanted.split("|"))
    return matched == (operator == "==")


def together(each: Iterator[bool | None]) -> bool | None:
    """Whether all hold: what is known not to hold decides before what is not known."""
    result: bool | None = True
    for one in each:
        if one is False:
            return False
        result = result and one
    return result


class _Pass:
    """One file's rules for one device, and what they have put into ENV so far."""

    def __init__(self, fs: KernelFS, device: Device) -> None:
        self._fs = fs
        self._device = device
        self._environment: dict[str, str | None] = {}

    def holds(self, tokens: Sequence[Token]) -> bool | None:
        """Whether a rule's conditions hold."""
        conditions = [token for token in tokens if token[2] in CONDITIONS or token[0] in PROGRAMS]
        above = [token for token in conditions if token[0] in ABOVE]
        result = self._result(conditions)
        own = together(
            self._matches(token, result) for token in conditions if token[0] not in ABOVE
        )
        if own is False or not above:
            return own
        return together(iter((own, self._device.matches_above(above))))

    def assign(self, tokens: Sequence[Token], surely: bool) -> None:
        """Remember what a rule puts into ENV."""
        for key, inner, operator, value in tokens:
            if key == "ENV" and operator in ASSIGNMENTS:
                text = self._device.substitute(value)
                self._environment[inner] = text if surely and "$" not in text else None

    def _result(self, tokens: Sequence[Token]) -> str | None:
        """What the program of a rule prints, where that is known."""
        programs = [value for key, _, _, value in tokens if key == "PROGRAM"]
        known = programs and self._device.machine and ARCHITECTURE.fullmatch(programs[0])
        return self._device.machine if known else None

    def _matches(self, token: Token, result: str | None) -> bool | None:
        key, inner, _, _ = token
        other = re.fullmatch(r"\[dmi/id\](\w+)", inner)
        if key == "ATTR" and other:
            found = self._fs.read_permitted(f"/sys/class/dmi/id/{other[1]}") or ""
            return fits(token, found)
        if key == "PROGRAM" and result is not None:
            return True
        if key == "RESULT":
            return None if result is None else fits(token, result)
        if key == "ENV" and inner in self._environment:
            value = self._environment[inner]
            return None if value is None else fits(token, value)
        return self._device.matches(token)


def _assigns(token: Token, attribute: str) -> bool:
    key, inner, operator, value = token
    if key == "RUN" and operator in ("+=", *ASSIGNMENTS):
        return re.search(rf"\b{attribute}\b", value) is not None
    return key == "ATTR" and inner == attribute and operator in ASSIGNMENTS
