# SPDX-License-Identifier: GPL-2.0-or-later
"""What a section of a profile gets from its settings file: which setting is which option, the
profile's default below, what is wrong, and errors in the words of the file. Pure but for reading.

An option that the section itself sets comes before the file, the file before the profile's default
(defaults.conf beside its tuned.conf), and that before the plugin's.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from tuned_virt.core import options as opt
from tuned_virt.core import settings
from tuned_virt.core.options import GROUP, OptionError, OptionSpec, template
from tuned_virt.core.settings import Setting, SettingError, SettingsFile
from tuned_virt.frozen_dataclasses import dataclass, field, replace

DEVICES = "devices"
EXCLUDE = "exclude"
SELECTION = (DEVICES, EXCLUDE)
"""Settings that are no options of a plugin: what a section is for, and what it is not for."""

FILE = OptionSpec("the settings file, such as /etc/tuned/virtual-host-plus-variables.conf")
DEFAULTS = OptionSpec("the file that has all settings of the profile with their defaults")

SETTINGS_OF_ONE: Mapping[str, tuple[str, ...]] = {
    "virtual-host-plus": (
        *("ksm_*", "vm_*", "disk_host_*", "power", "load_modules", "dirty_background_ratio"),
        *("hugepages_headroom", "hugepages_restart_libvirt"),
    ),
    "virtual-guest-plus": ("disk_guest_*", "dirty_ratio", "memory_auto_online"),
}
"""Settings that only one of our profiles has, as patterns: the other may not be installed."""

Used = Callable[[str, Collection[str]], Collection[str]]
"""Those of a settings file's names that a profile which includes it uses as ${name}."""


@dataclass(frozen=True)
class SettingNames:
    """What a plugin's options are called in a settings file: with a prefix, or otherwise."""

    prefix: str = ""
    special: Mapping[str, str] = field(default_factory=dict)

    def of(self, option: str) -> str:
        """The setting's name; `observe` is one for all."""
        return option if option == "observe" else self.special.get(option, self.prefix + option)


@dataclass(frozen=True)
class SectionSettings:
    """The settings of one section, by option.

    names    what each option is called in the file
    texts    its value in the file, or the profile's default
    lines    those that the file sets
    errors   what is wrong in the file and concerns the section; nothing of it may be applied then
    """

    file: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, Setting] = field(default_factory=dict)
    errors: tuple[OptionError, ...] = ()

    def told(self, errors: Iterable[OptionError], written: Mapping[str, str]) -> list[OptionError]:
        """Errors of options in the file's words, but for those that the section has written."""
        return [
            one
            if one.option not in self.names or one.value in written.get(one.option, ())
            else self._told(one)
            for one in errors
        ]

    def _told(self, error: OptionError) -> OptionError:
        found = self.lines.get(error.option)
        name = self.names[error.option]
        text = f"{name}={found.value if found else error.value}"
        valid = f"is not valid: {self._renamed(error.valid)}{_meant(error)}"
        file, line = (found.file or self.file, found.line) if found else (self.file, 0)
        return SettingError(file, line, text, valid, error.option)

    def _renamed(self, text: str) -> str:
        """A text with the settings' names; an option is a word before =, or of several parts."""
        plain = "|".join(sorted(map(re.escape, self.names), key=len, reverse=True))
        pattern = rf"(?<![\w-])(?:{plain})(?==)|(?<![\w-])(?=\w*_)(?:{plain})(?![\w-])"
        return re.sub(pattern, lambda found: self.names[found[0]], text) if plain else text


def _meant(error: OptionError) -> str:
    """What a bad value was probably meant to be."""
    unquoted = re.fullmatch(r"""(["'])(.*)\1""", error.value)
    if unquoted:
        return f"; write {unquoted[2]} without quotes"
    words = error.valid.partition("one of ")[2].split(", ")
    found = settings.alike(error.value, words) if words != [""] else []
    return f"; did you mean {found[0]}?" if found else ""


def load(
    names: SettingNames, options: Iterable[str], file: str, defaults: str, used: Used
) -> SectionSettings:
    """The settings of a plugin's section. Files that have not changed are not read again."""
    profile, read = settings.read(defaults), settings.read(file)
    named = {
        names.of(option): option
        for option in (*options, *SELECTION)
        if names.of(option) in profile.settings
    }
    for name in read.settings.keys() - named.keys():
        if template(name) in named:
            named[name] = named[template(name)].replace(GROUP, name.partition(".")[2])
    lines = {named[name]: one for name, one in read.settings.items() if name in named}
    texts = {named[name]: one.value for name, one in profile.settings.items() if name in named}
    texts.update((option, one.value) for option, one in lines.items())
    errors = (*profile.errors, *read.errors, *unknown(read, profile, used, named))
    names_of = {option: name for name, option in named.items()}
    found = SectionSettings(file, names_of, texts, lines, errors)
    wrong = opt.parsed(
        {option: lines[option].value for option in SELECTION if option in lines},
        {option: opt.names for option in SELECTION},
    )[1]
    return replace(found, errors=(*errors, *found.told(wrong, {}))) if wrong else found


def unknown(
    read: SettingsFile, profile: SettingsFile, used: Used, own: Collection[str] | None = None
) -> Iterator[SettingError]:
    """The names that the profile does not have and nothing uses.

    With `own` only those that one of these names was probably meant by, or none at all.
    """
    names = {name for name in read.settings if template(name) not in profile.settings}
    names -= {name for one in read.settings.values() for name in one.uses}
    names -= set(used(read.path, names)) if names else set()
    here = os.path.basename(os.path.dirname(profile.path))
    manual = f"{here}-variables.conf(5)"
    for name in sorted(
        names, key=lambda name: (read.settings[name].file, read.settings[name].line)
    ):
        found = settings.alike(name, profile.settings)
        if own is None or not found or set(own) & set(found):
            meant = (
                f": did you mean {found[0]}?"
                if found
                else ", and no profile that includes the file uses it."
            )
            valid = _another_profiles(name, here) or f"is not a setting{meant} All are in {manual}"
            one = read.settings[name]
            yield SettingError(one.file or read.path, one.line, f"{name}={one.value}", valid)


def _another_profiles(name: str, here: str) -> str:
    """What to do with a setting that another profile of ours has; "" where none has it."""
    for profile, patterns in SETTINGS_OF_ONE.items():
        there = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        if there and profile != here and here in SETTINGS_OF_ONE:
            return (
                f"is not a setting of {here}, but of {profile}: move it to"
                f" {profile}-variables.conf, or delete it"
            )
    return ""


def combined(
    options: Mapping[str, OptionSpec], found: SectionSettings, written: Mapping[str, str]
) -> dict[str, str]:
    """Every option's text: as the section has it, or the file, or the profile, or the plugin.

    An empty one stands for the plugin's default. What refines an option for some guests in the file
    is void where the section sets that option.
    """
    layers = {**found.texts, **written}
    for name in layers.keys() - written.keys():
        if template(name) in options and options[template(name)].refines in written:
            del layers[name]
    groups = {name: text for name, text in layers.items() if template(name) != name}
    known = {name: layers.get(name) or spec.default or "" for name, spec in options.items()}
    return {**known, **{name: text for name, text in groups.items() if template(name) in options}}


def selection(devices: str | None, found: SectionSettings) -> str | None:
    """TuneD's device expression of a section, the file's where it has none of its own ("*")."""
    if devices is None:
        return None
    own = devices if devices != "*" else found.texts.get(DEVICES) or "*"
    excluded = found.texts.get(EXCLUDE, "").replace(",", " ").split()
    return " ".join([own, *(f"!{word.lstrip('!')}" for word in excluded)])
