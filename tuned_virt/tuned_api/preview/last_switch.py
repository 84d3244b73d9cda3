# SPDX-License-Identifier: GPL-2.0-or-later
"""What the active profile has set where its files were edited after the switch to it.

TuneD keeps originals in its memory and never saves its storage, so files as they are now may not
tell what it set. Our journal does: its entries of the running switch have both values. What it does
not have, crash_guard may have kept; else it is not known, and that is said.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

from tuned import consts

from tuned_virt.core.active_profile import NAMES
from tuned_virt.core.journal import TUNED, Entry
from tuned_virt.core.preview import PreviewedValue, PreviewRemark, known
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel.files import AnyPath

WRITTEN: tuple[AnyPath, ...] = (NAMES, consts.PID_FILE)
"""Files that TuneD writes before it applies a profile: at each switch, and when it starts."""

NAMED = re.compile(r"/[^\s:,;=${}]+\.conf\b")
"""A file that a line of a profile names: of variables, or of settings."""

SETTING = re.compile(r"\[(?P<section>[^\]]*)\] (?P<setting>\S+)(?: of (?P<device>\S+))?")
"""A value of a TuneD plugin in the journal."""


@dataclass(frozen=True)
class LastSwitch:
    """The switch to the active profile: seconds since the epoch, and the journal's entries."""

    when: float
    entries: tuple[Entry, ...] = ()

    def edited(self, files: Iterable[tuple[str, str]]) -> list[str]:
        """Which of a profile's files, given with their texts, or that these name, are newer."""
        paths: dict[str, None] = {}
        for path, text in files:
            paths.update(dict.fromkeys([path, *NAMED.findall(text)]))
        return [path for path in paths if _modified(path) > self.when]

    def returning(self) -> Iterator[PreviewedValue]:
        """What TuneD has set at the switch and puts back at the next one."""
        there = {one.setting: one for one in self.entries if one.plugin == TUNED}
        for entry in there.values():
            found = SETTING.fullmatch(entry.setting)
            if found and entry.when >= self.when:
                section, setting, device = found.group("section", "setting", "device")
                values = (known(entry.after), known(entry.before))
                why = "its original value; set before the files of the profile were edited"
                yield PreviewedValue(section, "", setting, "", *values, why, None, device or "")


def read(entries: Iterable[Entry]) -> LastSwitch | None:
    """The switch to the active profile, None where no file tells when it was."""
    when = max(map(_modified, WRITTEN))
    with contextlib.suppress(OSError):
        return LastSwitch(when, tuple(entries)) if when else None
    return LastSwitch(when)


def remark(edited: Iterable[str], journal: bool) -> PreviewRemark:
    """That files were edited, and what is therefore not known."""
    rest = (
        "; what the journal has of the switch is in the list"
        if journal
        else " (the journal has nothing of the switch either)"
    )
    reason = (
        "edited since the switch to the active profile, so values that it set then and would not"
        f" set now may be missing here, and each returns to its original{rest}"
    )
    return PreviewRemark("active profile", ", ".join(edited), reason)


def _modified(path: AnyPath) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
