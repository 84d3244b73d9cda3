# SPDX-License-Identifier: GPL-2.0-or-later
"""Which parts of a profile a settings file asks for, and its values for TuneD's own plugins. Pure.

TuneD merges sections of the same name, `uname_regex` included, so a section of TuneD's cannot be
switched off without switching off those of other profiles. Sections that depend on a setting are
therefore profiles of their own, which virtual-host-plus and virtual-guest-plus include or do not.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.core import options as opt
from tuned_virt.core.options import Number, OneOf, OptionError
from tuned_virt.frozen_dataclasses import dataclass

VALUES: Mapping[str, Number | OneOf] = {
    "swappiness": Number(0, 200),
    "dirty_ratio": Number(1, 100, "percent"),
    "dirty_background_ratio": Number(1, 100, "percent"),
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

CHECKED: Mapping[str, Number | OneOf] = {
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
    choices = {name: OneOf(tuple(parts)).parse for name, parts in CHOICES.items()}
    chosen, bad = opt.parsed(given, choices)
    names += [CHOICES[name][word] for name, word in chosen.items()]
    return Parts(tuple(filter(None, names)), (*errors, *bad))
