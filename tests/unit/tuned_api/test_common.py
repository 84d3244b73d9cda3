# SPDX-License-Identifier: GPL-2.0-or-later
"""The profile before ours is read while TuneD makes plugins, recorded when the first is applied."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.guests.recording import RecordingTuner
from tests.unit.libvirt_api.fake_binding import FakeLibvirt
from tests.unit.tuned_api.test_guest_plugin import fake, plugin
from tuned_virt.core import active_profile
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.state_file import NOT_THERE
from tuned_virt.core.system_root import SystemRoot
from tuned_virt.tuned_api.common import PreviousProfile

__all__ = ["fake"]

HOST = ActiveProfile(("virtual-host",))


def files_say(system: SystemRoot, text: str) -> None:
    Path(system.path(active_profile.NAMES)).write_text(text)


def recorded(system: SystemRoot) -> object:
    return active_profile.record_file(system).read()


def test_tuneds_own_steps_record_it(fake: FakeLibvirt, system: SystemRoot) -> None:
    files_say(system, "virtual-host\n")
    plugin(RecordingTuner(), all={"policy": "a"})
    assert recorded(system) == HOST


def test_what_the_files_say_at_apply_is_not_what_was_before(system: SystemRoot) -> None:
    files_say(system, "virtual-host\n")
    for _ in range(3):  # plugins
        PreviousProfile.read()
    files_say(system, "virtual-host-plus\n")
    for _ in range(3):
        PreviousProfile.remember()
    assert recorded(system) == HOST


def test_a_profile_that_is_loaded_and_not_applied_records_nothing(system: SystemRoot) -> None:
    files_say(system, "virtual-host\n")
    PreviousProfile.read()
    assert recorded(system) is NOT_THERE


def test_a_reload_records_nothing(system: SystemRoot) -> None:
    files_say(system, "virtual-host-plus\n")
    PreviousProfile.read()
    PreviousProfile.remember()
    assert recorded(system) is NOT_THERE


def test_files_that_cannot_be_read_record_nothing_and_that_is_said_once(
    system: SystemRoot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> ActiveProfile:
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/tuned/active_profile")

    files_say(system, "virtual-host\n")
    monkeypatch.setattr(active_profile, "read", fail)
    PreviousProfile.read()
    PreviousProfile.remember()
    assert recorded(system) is NOT_THERE
    PreviousProfile.remember()
    [said] = caplog.messages
    assert "is not recorded" in said
    assert "Permission denied: '/etc/tuned/active_profile'" in said


def test_it_is_read_once_for_all_plugins_of_a_profile(
    system: SystemRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [HOST, ActiveProfile(("powersave",))]
    monkeypatch.setattr(active_profile, "read", lambda _: answers.pop(0))
    for _ in range(3):
        PreviousProfile.read()
    assert len(answers) == 1
    PreviousProfile.forget()  # TuneD is done with plugins that it has never applied
    for _ in range(3):
        PreviousProfile.read()
    PreviousProfile.remember()
    assert recorded(system) == ActiveProfile(("powersave",))
