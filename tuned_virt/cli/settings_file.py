# SPDX-License-Identifier: GPL-2.0-or-later
"""What a settings file has for one plugin, as the plugin itself reads it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import tuned_virt
from tuned_virt.cli.common import CouldNot
from tuned_virt.core import section_settings
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.options import BadOptions
from tuned_virt.core.section_settings import SectionSettings, SettingNames
from tuned_virt.kernel.files import AnyPath

HOST = "virtual-host-plus"
GUEST = "virtual-guest-plus"
PROFILES = (HOST, GUEST)

FOLDER = "/etc/tuned"
ENDING = "-variables.conf"
DEFAULTS = "defaults.conf"

CHECKOUT = os.path.join(os.path.dirname(tuned_virt.__file__), os.pardir, "profiles")
"""Where the profiles are while the command is run from its sources."""


def machines_files() -> list[str]:
    """The settings files that there are on this machine, the host's first."""
    files = (os.path.join(FOLDER, f"{profile}{ENDING}") for profile in PROFILES)
    return [file for file in files if os.path.exists(file)]


def profile_of(file: AnyPath) -> str:
    """The profile that a settings file is for, by its name; virtual-host-plus by any other."""
    return GUEST if os.path.basename(file).startswith(GUEST) else HOST


def defaults_of(profile: str) -> str:
    """The file with a profile's settings and their defaults. Raises CouldNot."""
    here = os.path.join(CHECKOUT, profile, DEFAULTS)
    found = here if os.path.exists(here) else InstalledProfiles().beside(profile, DEFAULTS)
    if found is None:
        raise CouldNot(f"the profile {profile} is not installed: there is no {profile}/{DEFAULTS}")
    return found


def load(
    names: SettingNames, options: Iterable[str], file: AnyPath, profile: str = ""
) -> SectionSettings:
    """What a file has for a plugin, `errors` included. Raises CouldNot."""
    defaults = defaults_of(profile or profile_of(file))
    using = InstalledProfiles().using
    return section_settings.load(names, options, os.fspath(file), defaults, using)


def checked(
    names: SettingNames, options: Iterable[str], file: AnyPath, profile: str = ""
) -> SectionSettings:
    """The same of a file without errors. Raises CouldNot."""
    found = load(names, options, file, profile)
    wrong = list(map(str, found.errors))
    wrong += [
        f"{one.file}: line {one.line}: '{one.name}={one.value}': only TuneD can evaluate a function"
        for one in found.lines.values()
        if "${f:" in one.value
    ]
    if wrong:
        raise CouldNot("\n".join(wrong))
    return found


def refused(found: SectionSettings, bad: BadOptions, words: dict[str, str]) -> CouldNot:
    """The error for bad options, in the file's words but for those that `words` set."""
    return CouldNot("\n".join(map(str, found.told(bad.errors, words))))
