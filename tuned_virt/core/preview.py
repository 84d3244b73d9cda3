# SPDX-License-Identifier: GPL-2.0-or-later
"""What a profile switch would change, as values: before and after, and what is not known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from tuned_virt.core.options import Modifier
from tuned_virt.core.profile_lines import ProfileLine
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.files import active_word


class Knowledge(str, Enum):
    """Whether a value is known, and if not, why: the three are never taken for each other."""

    KNOWN = "known"
    UNREADABLE = "cannot read"
    ABSENT = "absent"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Reading:
    """A value, or what is known instead of one."""

    knowledge: Knowledge
    value: str = ""
    why: str = ""

    def __str__(self) -> str:
        return (
            (self.value or "(empty)") if self.knowledge is Knowledge.KNOWN else self.knowledge.value
        )


def known(value: object) -> Reading:
    """A value as the kernel shows it."""
    return Reading(Knowledge.KNOWN, active_word(str(value).strip()))


def unknown(why: str) -> Reading:
    """No value, and the reason."""
    return Reading(Knowledge.UNKNOWN, why=why)


@dataclass(frozen=True)
class PreviewedValue:
    """One setting's value before and after the switch.

    plugin, section  TuneD's plugin, and the section of the profile that wants it
    setting          as the profile or the plugin names it
    path             the kernel's file, "" where the setting is no file
    wanted_by        the profile's line, None where no profile wants it any more
    device           the disk, CPU or guest that it is of, "" where it is of none
    """

    plugin: str
    section: str
    setting: str
    path: str
    before: Reading
    after: Reading
    why: str = ""
    wanted_by: ProfileLine | None = None
    device: str = ""

    @property
    def unit(self) -> str:
        """The unit of its values, "" where they have none."""
        return unit(self.setting)

    @property
    def unchanged(self) -> bool:
        """Whether it is known to stay as it is."""
        return (
            self.before.knowledge in (Knowledge.KNOWN, Knowledge.ABSENT)
            and self.before.knowledge is self.after.knowledge
            and same(self.before.value, self.after.value)
        )


@dataclass(frozen=True)
class PreviewRemark:
    """What is refused, not known, or to be noted of a plugin or one of its settings."""

    plugin: str
    setting: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plugin}: {f'{self.setting}: ' if self.setting else ''}{self.reason}"


@dataclass
class SwitchPreview:
    """All that a switch would do, as far as it can be known."""

    values: list[PreviewedValue] = field(default_factory=list)
    refused: list[PreviewRemark] = field(default_factory=list)
    not_known: list[PreviewRemark] = field(default_factory=list)
    notes: list[PreviewRemark] = field(default_factory=list)

    @property
    def changes(self) -> list[PreviewedValue]:
        """Values that change, or of which it is not known, by plugin and name."""
        plugins = list(dict.fromkeys(value.plugin for value in self.values))
        changing = [value for value in self.values if not value.unchanged]
        return sorted(changing, key=lambda one: (plugins.index(one.plugin), _order(one)))

    @property
    def unchanged(self) -> int:
        """Values that the new profile wants and that are so already."""
        return len(self.values) - len(self.changes)


def _order(value: PreviewedValue) -> list[tuple[int, str]]:
    """Names in the order of people: sda2 before sda10."""
    parts = re.findall(r"\d+|\D+", f"{value.setting} {value.device}")
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def same(one: str, other: str) -> bool:
    """Whether two texts are one value to the kernel: numbers, and lists with other spacing."""
    left, right = one.split(), other.split()
    return left == right or (
        len(left) == len(right) == 1
        and all(re.fullmatch(r"-?\d+", text, re.ASCII) for text in (*left, *right))
        and int(left[0]) == int(right[0])
    )


UNITS: Mapping[str, str] = {
    r"(dirty|dirty_background)_ratio$": "% of available memory",
    r"_(kb|kbytes)$|^readahead$": "KiB",
    r"_mb$": "MiB",
    r"_bytes$": "bytes",
    r"_(pct|percent)$": "%",
    r"_ns$": "ns",
    r"_(us|usecs)$|^force_latency$": "µs",
    r"_(ms|msecs|millisecs)$": "ms",
    r"_centisecs$": "1/100 s",
    r"nr_(overcommit_)?hugepages$|pages_to_scan$": "pages",
}


def unit(setting: str) -> str:
    """The unit of a setting's values, by its name."""
    return next((unit for name, unit in UNITS.items() if re.search(name, setting)), "")


# --- what TuneD's > and < come to -----------------------------------------------------------------


def split(text: str) -> tuple[Modifier, str]:
    """A profile's value: TuneD's modifier, and the rest."""
    if len(text) > 1 and text[0] in "<>":
        return Modifier(text[0]), text[1:]
    return Modifier.EXACTLY, text


def original(applied: str, current: str) -> int | None:
    """The value before TuneD, where what it applied did not change it."""
    modifier, text = split(applied)
    limit, now = _number(text), _number(current)
    if limit is None or now is None:
        return None
    if modifier is Modifier.AT_LEAST and now > limit:
        return now
    if modifier is Modifier.AT_MOST and now < limit:
        return now
    return None


def after_modifier(wanted: str, applied: str, current: str) -> str | None:
    """What a value with a modifier comes to where TuneD alone knows the original.

    `applied` is what the active profile asked for, `current` what is there. At a switch the
    original comes back first, and the modifier compares with that. None: several are possible.
    """
    if wanted == applied and _consistent(applied, current):
        return current
    modifier, text = split(wanted)
    limit, before = _number(text), original(applied, current)
    if limit is None:
        return None
    if before is not None:
        choose = max if modifier is Modifier.AT_LEAST else min
        return str(choose(limit, before))
    bound, (side, bounded) = _number(split(applied)[1]), split(applied)
    if bound is None or side is not modifier or not same(bounded, current):
        return None
    beyond = limit >= bound if modifier is Modifier.AT_LEAST else limit <= bound
    return str(limit) if beyond else None


def _consistent(applied: str, current: str) -> bool:
    """Whether nobody has changed the value since TuneD applied it."""
    modifier, text = split(applied)
    limit, now = _number(text), _number(current)
    if limit is None or now is None:
        return False
    return {
        Modifier.EXACTLY: now == limit,
        Modifier.AT_LEAST: now >= limit,
        Modifier.AT_MOST: now <= limit,
    }[modifier]


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\s*-?\d+\s*", text, re.ASCII) else None
