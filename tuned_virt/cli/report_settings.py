# SPDX-License-Identifier: GPL-2.0-or-later
"""A report's settings: what the settings files set, and the defaults of all else. Pure but for the
profiles' own files of defaults."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tuned_virt.cli import settings_file
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.report_table import Column, Table, TableCell, table
from tuned_virt.core import settings
from tuned_virt.core.settings import SettingsFile

EMPTY = "(empty)"

COLUMNS = (
    Column("setting"),
    Column("value"),
    Column("from", "the line of the settings file, or the profile's default"),
)


def settings_tables(
    files: Mapping[str, str], status: Mapping[str, Any] | None
) -> dict[str, Table | list[str]]:
    """What each file in force, by its path and text, sets; the defaults of all else; and the files
    that are not in force, as far as TuneD's status is known."""
    idle = [] if status is None else [path for path in files if not _in_force(path, status)]
    read = _by_profile(
        settings.parse(path, text) for path, text in files.items() if path not in idle
    )
    own = [row for one in read for row in _set(one)]
    rest = [row for one in read for row in _defaults(one)]
    caption = f"{len(rest)} settings at their defaults"
    return {
        "set": table("settings-table", _told(read, len(own)), COLUMNS, own),
        "defaults": table("defaults-table", caption, COLUMNS, rest),
        "idle": [f"{path} is not in force: its profile is not active" for path in idle],
    }


def _by_profile(files: Iterable[SettingsFile]) -> list[SettingsFile]:
    """Each profile's files as one, as the plugins read them."""
    found: dict[str, list[SettingsFile]] = {}
    for one in files:
        found.setdefault(settings_file.profile_of(one.path), []).append(one)
    return [settings.layered(some) for some in found.values()]


def _in_force(path: str, status: Mapping[str, Any]) -> bool:
    """Whether the active profile is the file's, or another one that includes one of ours."""
    active = set(status["profile"].split())
    if active & set(settings_file.PROFILES):
        return settings_file.profile_of(path) in active
    return status["returns_to"] is not None


def _told(read: Sequence[SettingsFile], number: int) -> str:
    if not read:
        return "no settings file of virtual-host-plus or virtual-guest-plus is in force"
    return f"{number} set in {' and '.join(one.path for one in read)}"


def _set(read: SettingsFile) -> Iterator[tuple[object, ...]]:
    for one in read.settings.values():
        name = os.path.basename(one.file) if one.file == read.path else one.file
        yield one.name, one.value or EMPTY, f"{name}, line {one.line}"
    for error in read.errors:
        yield "not valid", TableCell(error.value, level="error"), str(error)


def _defaults(read: SettingsFile) -> Iterator[tuple[object, ...]]:
    """None where the profile is not installed here."""
    profile = settings_file.profile_of(read.path)
    try:
        found = settings.read(settings_file.defaults_of(profile))
    except CouldNot:
        return
    for one in found.settings.values():
        if one.name not in read.settings:
            yield one.name, one.value or EMPTY, f"default of {profile}"
