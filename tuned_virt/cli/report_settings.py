# SPDX-License-Identifier: GPL-2.0-or-later
"""A report's settings: what the settings files set, and the defaults of all else. Pure but for the
profiles' own files of defaults."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

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


def settings_tables(files: Mapping[str, str]) -> dict[str, Table]:
    """What each file, by its path and text, sets; and the defaults of all else."""
    read = [settings.parse(path, text) for path, text in files.items()]
    own = [row for one in read for row in _set(one)]
    rest = [row for one in read for row in _defaults(one)]
    caption = f"{len(rest)} settings at their defaults"
    return {
        "set": table("settings-table", _told(files, len(own)), COLUMNS, own),
        "defaults": table("defaults-table", caption, COLUMNS, rest),
    }


def _told(files: Mapping[str, str], number: int) -> str:
    if not files:
        return "there is no settings file of virtual-host-plus or virtual-guest-plus"
    return f"{number} set in {' and '.join(files)}"


def _set(read: SettingsFile) -> Iterator[tuple[object, ...]]:
    name = os.path.basename(read.path)
    for one in read.settings.values():
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
