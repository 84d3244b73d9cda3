# SPDX-License-Identifier: GPL-2.0-or-later
"""Which parts of a profile a settings file asks for, and its values for TuneD's own plugins. Pure.

TuneD merges sections of the same name, `uname_regex` included, so a section of TuneD's cannot be
switched off without switching off those of other profiles. Sections that depend on a setting are
therefore profiles of their own, which virtual-host-plus and virtual-guest-plus include or do not.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.core import options as opt
from tuned_virt.core.options import Number, OneOf, OptionError, WantedValue
from tuned_virt.frozen_dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True)
class NumberOrAuto:
    """A number, or the word for one that depends on the machine."""

    number: Number

    @property
    def valid(self) -> str:
        """What may be written, for messages and hints."""
        return f"{self.number.valid}, or {AUTO}"

    def parse(self, option: str, text: str) -> WantedValue | str:
        """Raises OptionError."""
        if text == AUTO:
            return text
        try:
            return self.number.parse(option, text)
        except OptionError as error:
            raise OptionError(option, text, self.valid) from error


VALUES: Mapping[str, Number | OneOf | NumberOrAuto] = {
    "swappiness": NumberOrAuto(Number(0, 200)),
    "dirty_ratio": Number(1, 100, "percent"),
    "dirty_background_ratio": Number(1, 100, "percent"),
    "dirty_bytes": Number(8192, 2**50, "bytes"),
    "dirty_background_bytes": Number(1, 2**50, "bytes"),
    "arp_filter": OneOf(("0", "1")),
}
"""Settings that TuneD's own plugins apply, with what is valid."""

CHOICES: Mapping[str, Mapping[str, str]] = {
    "power": {
        "stock": "",
        "balanced": "virt-plus-power-balanced",
        "keep": "virt-plus-power-keep",
    },
    "read_ahead": {"stock": "", "keep": "virt-plus-read-ahead-keep"},
    "hugepages_boot": {"never": "", "auto": "virt-plus-boot"},
}
"""Settings that decide on a part: by valid word the profile to include, "" for none."""

BYTES: Mapping[str, str] = {
    "dirty_background_bytes": "background-bytes",
    "dirty_bytes": "dirty-bytes",
}
"""Settings in bytes, which replace percentages: the end of the name of the part that each needs."""

CHECKED: Mapping[str, Number | OneOf | NumberOrAuto] = {
    **VALUES,
    **{name: OneOf(tuple(CHOICES[name])) for name in ("power", "read_ahead")},
}
"""Settings that no plugin of ours applies, with what is valid."""

NAMES = (*VALUES, *CHOICES, "observe")
"""All settings that decide on the parts or on their values."""


@dataclass(frozen=True)
class Parts:
    """The profiles to include, in order, and the settings that are not valid."""

    names: tuple[str, ...] = ()
    errors: tuple[OptionError, ...] = ()


def wanted(tuning: str, settings: Mapping[str, str]) -> Parts:
    """The parts of a profile: `tuning`, which has its sections for TuneD's plugins, and others.

    None while the plugins only observe: TuneD's sections are then as the stock profile has them.
    A part that has a value that is not valid is left out.
    """
    given = opt.given(settings)
    try:
        if opt.is_yes("observe", given.get("observe", "0")):
            return Parts()
    except OptionError as error:
        return Parts(errors=(error,))
    readers = {name: valid.parse for name, valid in VALUES.items()}
    _, errors = opt.parsed(given, readers)
    names = [] if errors else [tuning]
    names += [f"{tuning}-{end}" for name, end in BYTES.items() if name in given and names]
    choices = {name: OneOf(tuple(parts)).parse for name, parts in CHOICES.items()}
    chosen, bad = opt.parsed(given, choices)
    names += [CHOICES[name][word] for name, word in chosen.items()]
    return Parts(tuple(filter(None, names)), (*errors, *bad))
