# SPDX-License-Identifier: GPL-2.0-or-later
"""What the active profile set where its files were edited after the switch to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.tuned_api.preview.profiles import NOW, PATH, SETTING, Profiles, reasons
from tuned_virt.core.journal import TUNED, Entry
from tuned_virt.core.preview import SwitchPreview
from tuned_virt.tuned_api.preview import last_switch, switch
from tuned_virt.tuned_api.preview.last_switch import LastSwitch

SWITCHED = 1000.0
READ_AHEAD = "[disk] readahead of vda"


def entry(when: float, setting: str, before: str, after: str, plugin: str = TUNED) -> Entry:
    return Entry(when, plugin, setting, "", before, after, "set by TuneD's [disk]")


JOURNAL = (
    entry(900, READ_AHEAD, "64", "256"),
    entry(1001, READ_AHEAD, "128", "4096"),
    entry(1001, f"[sysctl] {SETTING}", "1", NOW),
    entry(900, "[disk] apm of vdb", "1", "2"),
    entry(1001, "run", "0", "1", plugin="ksm"),
)


class Edited(Profiles):
    """The active profile sets one value and names a settings file of a given age."""

    def to(
        self, settings: float, *journal: Entry, new: str = "", guarded: bool = False
    ) -> SwitchPreview:
        file = self.folder / "settings.conf"
        file.write_text("read_ahead=keep\n")
        profiles = self.write("active", f"[sysctl]\n{SETTING}={NOW}\n[crash_guard]\nx={file}\n")
        self.write("new", new)
        for path, when in ((profiles, 500.0), (str(file), settings)):
            os.utime(path, (when, when))
        kept = {PATH: NOW} if guarded else {}
        return switch.preview(["active"], ["new"], kept, LastSwitch(SWITCHED, journal))[0]


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edited:
    return Edited(tmp_path, monkeypatch)


def test_what_only_the_old_settings_had_tuned_set_is_in_the_journal(edited: Edited) -> None:
    """read_ahead=keep after a switch with read-ahead: the read-ahead returns."""
    found = edited.to(1500, *JOURNAL)
    rows = [(v.plugin, v.setting, v.device, str(v.before), str(v.after)) for v in found.changes]
    assert rows == [
        ("sysctl", SETTING, "", NOW, "not known"),
        ("disk", "readahead", "vda", "4096", "128"),
    ]
    [said] = reasons(found)
    assert said.startswith(f"active profile: {edited.folder}/settings.conf: edited since")
    assert "what the journal has of the switch is in the list" in said


def test_without_a_journal_it_is_said_that_values_may_be_missing(edited: Edited) -> None:
    [said] = reasons(edited.to(1500, *JOURNAL[:1]))
    assert "may be missing here" in said
    assert "the journal has nothing of the switch either" in said


def test_originals_of_crash_guard_are_not_listed_twice(edited: Edited) -> None:
    found = edited.to(1500, *JOURNAL, guarded=True)
    assert [one.path for one in found.values] == [PATH]
    assert len(reasons(found)) == 1


def test_files_that_nobody_has_edited_since_tell_all(edited: Edited) -> None:
    found = edited.to(600, *JOURNAL)
    assert [one.path for one in found.values] == [PATH]
    assert reasons(found) == []


def test_when_the_switch_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later of TuneD's file of the active profile and its start; unknown without both."""
    names, started = tmp_path / "active_profile", tmp_path / "tuned.pid"
    monkeypatch.setattr(last_switch, "WRITTEN", (str(names), str(started)))
    assert last_switch.read(JOURNAL) is None
    names.write_text("")
    os.utime(names, (7, 7))
    assert last_switch.read(JOURNAL) == LastSwitch(7, JOURNAL)
    started.write_text("")
    os.utime(started, (9, 9))

    def unreadable() -> Iterator[Entry]:
        yield JOURNAL[0]
        raise PermissionError

    assert last_switch.read(unreadable()) == LastSwitch(9)
