# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt check-settings: check a settings file, before a switch to its profile.

It needs neither root nor TuneD, and says what verify would say after the switch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from typing import Any, Union

from tuned_virt import registry
from tuned_virt.cli import json_output, settings_file
from tuned_virt.cli.common import COULD_NOT, FINE, CouldNot
from tuned_virt.core import section_settings, settings
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.options import BadOptions, OptionError, is_yes
from tuned_virt.core.section_settings import SectionSettings
from tuned_virt.core.settings import Setting, SettingError, SettingsFile
from tuned_virt.core.tuner import Tuner
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.guests.restore import GuestRestore
from tuned_virt.kernel.files import AnyPath

UNCHECKED = "only TuneD can evaluate"

Tunable = Union[Tuner[Any, Any], GuestRestore[Any]]


@dataclass(frozen=True)
class CheckedFile:
    """A settings file, the profile that it is for, and what is wrong in it, by line.

    `unchecked` are settings that only TuneD can evaluate.
    """

    read: SettingsFile
    profile: str
    errors: tuple[SettingError, ...]
    unchecked: tuple[Setting, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="settings files; without any, those of this machine in /etc/tuned",
    )
    parser.add_argument(
        "--profile",
        choices=settings_file.PROFILES,
        help="the profile that the files are for, where their names do not say it",
    )
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Check and print; 2 where something is wrong. Raises CouldNot."""
    files = options.files or settings_file.machines_files()
    if not files:
        raise CouldNot(f"there is no settings file in {settings_file.FOLDER}: give one")
    checked = [check(file, options.profile or settings_file.profile_of(file)) for file in files]
    if options.json:
        json_output.emit("check-settings", {"files": list(map(_content, checked))})
    else:
        for one in checked:
            _print(one)
    return COULD_NOT if any(one.errors for one in checked) else FINE


def check(file: AnyPath, profile: str) -> CheckedFile:
    """What is wrong in a file. Raises CouldNot where the profile is not installed."""
    read = settings.read(os.fspath(file))
    defaults = settings.read(settings_file.defaults_of(profile))
    errors = [*read.errors]
    errors += section_settings.unknown(read, defaults, InstalledProfiles().using)
    unchecked: dict[str, Setting] = {}
    for tuner in registry.tuners().values():
        found = settings_file.load(tuner.setting_names, tuner.options, file, profile)
        functions = {name: one for name, one in found.lines.items() if "${f:" in one.value}
        unchecked.update((one.name, one) for one in functions.values())
        errors += (one for one in found.errors if isinstance(one, SettingError))
        errors += _refused(tuner, found, functions)
    once = {str(error): error for error in errors}
    by_line = sorted(once.values(), key=lambda error: (error.file, error.line))
    return CheckedFile(read, profile, tuple(by_line), tuple(unchecked.values()))


def _refused(
    tuner: Tunable, found: SectionSettings, functions: Collection[str]
) -> list[SettingError]:
    """What one plugin refuses, but for options that only TuneD can evaluate."""
    texts = section_settings.combined(tuner.options, found, dict.fromkeys(functions, ""))
    errors = []
    try:
        is_yes("observe", texts.pop("observe"))
    except OptionError as error:
        errors.append(error)
    try:
        tuner.parse(texts)
    except BadOptions as bad:
        errors += bad.errors
    return [one for one in found.told(errors, {}) if isinstance(one, SettingError)]


def _print(checked: CheckedFile) -> None:
    for error in checked.errors:
        print(error)
    for one in checked.unchecked:
        print(f"{one.file}: line {one.line}: {UNCHECKED} {one.name}")
    if not checked.errors:
        number = len(checked.read.settings)
        print(f"{checked.read.path}: right for {checked.profile} ({number} set)")


def _content(checked: CheckedFile) -> dict[str, object]:
    return {
        "file": checked.read.path,
        "profile": checked.profile,
        "right": not checked.errors,
        "settings": [
            {"setting": one.name, "value": one.value, "line": one.line}
            for one in checked.read.settings.values()
        ],
        "errors": [
            {"line": one.line or None, "found": one.value, "text": str(one)}
            for one in checked.errors
        ],
        "notes": [f"{UNCHECKED} {one.name}" for one in checked.unchecked],
    }
