# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guests started while a profile was active."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from tests.unit.guests.recording import RecordingTuner
from tests.unit.libvirt_api.fake_binding import URI, FakeLibvirt, install
from tests.unit.plugins.vm_pinning.test_controller import DOMAIN, UUID, active
from tuned_virt.guests import tracker
from tuned_virt.guests.manager import Claim, GuestManager
from tuned_virt.guests.tracker import GuestTracker
from tuned_virt.kernel.files import KernelFS
from tuned_virt.kernel.procfs import ticks
from tuned_virt.libvirt_api.connection import Domain

PROFILE = 1000.0
"""Seconds after boot."""


def started_under_profile(monkeypatch: pytest.MonkeyPatch, started: float, since: float) -> bool:
    made = GuestTracker(KernelFS())
    monkeypatch.setattr(made._finder, "find", lambda uuids: dict.fromkeys(uuids, 7))
    monkeypatch.setattr(tracker, "start_time", lambda pid: int(started * ticks()))
    [seen] = made.look([active(DOMAIN.format(uuid=UUID, more=""))], since).values()
    return seen.started_under_profile


def test_a_guest_that_autostarts_after_the_profile_is_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At boot TuneD comes before libvirtd: its first list of guests holds those autostarted."""
    assert started_under_profile(monkeypatch, PROFILE + 20, PROFILE)
    assert not started_under_profile(monkeypatch, PROFILE - 20, PROFILE)


def test_a_process_that_cannot_be_seen_counts_as_running_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = GuestTracker(KernelFS())
    monkeypatch.setattr(made._finder, "find", lambda uuids: {})
    guest = active(DOMAIN.format(uuid=UUID, more=""))
    [seen] = made.look([guest], PROFILE).values()
    assert not seen.started_under_profile
    [seen] = GuestTracker(KernelFS()).look([guest], 0).values()
    assert seen.started_under_profile, "libvirt told of it while the profile was active"


class Silent:
    """A plugin object that does not say yet what it claims."""

    def guests_changed(self, guests: Mapping[str, Domain]) -> None:
        return None


def test_the_profile_counts_from_its_activation(
    monkeypatch: pytest.MonkeyPatch, fake: FakeLibvirt
) -> None:
    tuner = RecordingTuner()
    manager = GuestManager(tuner, URI)
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    plugin = Silent()
    manager.attach(plugin)
    first = manager._guests().active_since
    assert before <= first <= time.clock_gettime(time.CLOCK_BOOTTIME)
    manager.claim({("uuid1", 1): Claim("guest1", "p")})
    manager.attach(plugin)
    assert tuner.controller.active_since == first, "a switch from one profile of ours to another"
    manager.release()
    manager.attach(plugin)
    assert tuner.controller.active_since > first, "off in between"
    manager.detach(plugin)
    manager.control.close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    return install(monkeypatch)
