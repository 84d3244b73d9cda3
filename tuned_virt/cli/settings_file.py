# SPDX-License-Identifier: GPL-2.0-or-later
"""What a settings file has for one plugin, as the plugin itself reads it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tuned_virt.cli.common import CouldNot
from tuned_virt.core import section_settings
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.options import BadOptions
from tuned_virt.core.section_settings import SectionSettings, SettingNames

HOST = "virtual-host-plus"
GUEST = "virtual-guest-plus"
PROFILES = (HOST, GUEST)

FOLDER = Path("/etc/tuned")
ENDING = "-variables.conf"
DEFAULTS = "defaults.conf"

CHECKOUT = Path(__file__).parents[2] / "profiles"
"""Where the profiles are while the command is run from its sources."""


def machines_files() -> list[Path]:
    """The settings files that there are on this machine, the host's first."""
    files = (FOLDER / f"{profile}{ENDING}" for profile in PROFILES)
    return [file for file in files if file.exists()]


def profile_of(file: Path) -> str:
    """The profile that a settings file is for, by its name; virtual-host-plus by any other."""
    return GUEST if file.name.startswith(GUEST) else HOST


def defaults_of(profile: str) -> str:
    """The file with a profile's settings and their defaults. Raises CouldNot."""
    here = CHECKOUT / profile / DEFAULTS
    found = str(here) if here.exists() else InstalledProfiles().beside(profile, DEFAULTS)
    if found is None:
        raise CouldNot(f"the profile {profile} is not installed: there is no {profile}/{DEFAULTS}")
    return found


def load(
    names: SettingNames, options: Iterable[str], file: Path, profile: str = ""
) -> SectionSettings:
    """What a file has for a plugin, `errors` included. Raises CouldNot."""
    defaults = defaults_of(profile or profile_of(file))
    using = InstalledProfiles().using
    return section_settings.load(names, options, str(file), defaults, using)


def checked(
    names: SettingNames, options: Iterable[str], file: Path, profile: str = ""
) -> SectionSettings:
    """The same of a file without errors. Raises CouldNot."""
    found = load(names, options, file, profile)
    wrong = list(map(str, found.errors))
    wrong += [
        f"{file}: line {one.line}: '{one.name}={one.value}': only TuneD can evaluate a function"
        for one in found.lines.values()
        if "${f:" in one.value
    ]
    if wrong:
        raise CouldNot("\n".join(wrong))
    return found


def refused(found: SectionSettings, bad: BadOptions, words: dict[str, str]) -> CouldNot:
    """The error for bad options, in the file's words but for those that `words` set."""
    return CouldNot("\n".join(map(str, found.told(bad.errors, words))))
