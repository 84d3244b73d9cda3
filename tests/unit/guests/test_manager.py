# SPDX-License-Identifier: GPL-2.0-or-later
"""Claims carried out by libvirt's worker, over a fake binding."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

import pytest

from tests.unit.guests.recording import Claims, RecordingTuner, until
from tests.unit.libvirt_api.fake_binding import URI, FakeDomain, FakeLibvirt, install
from tuned_virt.guests.manager import Claim, GuestManager
from tuned_virt.kernel import timeouts
from tuned_virt.libvirt_api import worker
from tuned_virt.libvirt_api.connection import Domain


class ClaimsAll:
    """A plugin object that claims every guest, or says nothing."""

    def __init__(self) -> None:
        self.silent = False
        self.seen: list[set[str]] = []

    def guests_changed(self, guests: Mapping[str, Domain]) -> Claims | None:
        self.seen.append(set(guests))
        return None if self.silent else {one.run: Claim(one.name, "p") for one in guests.values()}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    monkeypatch.setattr(worker, "_workers", {})
    monkeypatch.setattr(worker, "FIRST_RETRY", 0.05)
    monkeypatch.setattr(timeouts, "FIRST_LISTING", 2.0)
    return install(monkeypatch)


@pytest.fixture
def tuner() -> RecordingTuner:
    return RecordingTuner()


@pytest.fixture
def manager(fake: FakeLibvirt, tuner: RecordingTuner) -> Iterator[GuestManager[str]]:
    made = GuestManager(tuner, URI)
    yield made
    made.control.close()
    until(lambda: fake.open_connections == 0)


def test_a_started_guest_costs_one_listing_and_one_adjust(
    fake: FakeLibvirt, tuner: RecordingTuner, manager: GuestManager[str]
) -> None:
    plugin = ClaimsAll()
    assert manager.attach(plugin) == {}
    manager.claim({})
    assert manager.settle()
    for number in range(1, 4):
        lists, adjusts = fake.lists, len(tuner.controller.adjusted)
        fake.domains.append(FakeDomain(number))
        fake.tell(fake.domains[-1])
        until(lambda adjusts=adjusts: len(tuner.controller.adjusted) > adjusts)  # type: ignore[misc]
        time.sleep(0.05)
        assert (fake.lists, len(tuner.controller.adjusted)) == (lists + 1, adjusts + 1)
        claims = tuner.controller.adjusted[-1]
        assert claims is not None
        assert len(claims) == number
        lists = fake.lists
    assert [one.text for one in manager.findings(claims or {}, False)] == [
        "guest1 p",
        "guest2 p",
        "guest3 p",
    ]


def test_what_is_claimed_already_is_no_news(
    fake: FakeLibvirt, tuner: RecordingTuner, manager: GuestManager[str]
) -> None:
    fake.domains = [FakeDomain(1)]
    manager.attach(ClaimsAll())
    manager.claim({("uuid1", 1): Claim("guest1", "p")})
    manager.settle()
    first = tuner.controller.adjusted[-1]
    manager.control.wake()
    until(lambda: len(tuner.controller.adjusted) > 2 or tuner.controller.adjusted[-1] is first)
    assert tuner.controller.adjusted[-1] is first, "controllers tell news by the object"


def test_nothing_is_adjusted_before_a_starting_plugin_claims(
    fake: FakeLibvirt, tuner: RecordingTuner, manager: GuestManager[str]
) -> None:
    plugin = ClaimsAll()
    plugin.silent = True
    fake.domains = [FakeDomain(1)]
    assert set(manager.attach(plugin)) == {"uuid1"}
    manager.control.wake()
    until(lambda: len(plugin.seen) > 1)
    assert tuner.controller.adjusted == []
    manager.claim({})
    assert manager.settle()
    assert tuner.controller.adjusted == [{}]


def test_a_release_waits_for_the_next_claim(
    fake: FakeLibvirt, tuner: RecordingTuner, manager: GuestManager[str]
) -> None:
    plugin, applied = ClaimsAll(), threading.Event()
    manager.attach(plugin)
    manager.claim({})
    plugin.silent = True
    manager.release(applied)
    manager.claim({})
    applied.set()
    time.sleep(0.05)
    assert manager.settle()
    assert None not in tuner.controller.adjusted
    manager.release(threading.Event())
    manager._deferred.flush()
    assert tuner.controller.adjusted[-1] is None


def test_with_nothing_left_the_connection_is_closed(
    fake: FakeLibvirt, tuner: RecordingTuner, manager: GuestManager[str]
) -> None:
    plugin = ClaimsAll()
    manager.attach(plugin)
    manager.claim({})
    plugin.silent = True
    tuner.controller.left = True
    manager.release()
    assert manager.settle()
    manager.detach(plugin)
    time.sleep(0.05)
    assert fake.open_connections == 1, "something is still to be restored"
    tuner.controller.left = False
    manager.restore_unclaimed()
    until(lambda: fake.open_connections == 0)


def test_a_libvirt_that_is_gone_is_not_waited_for(
    fake: FakeLibvirt, tuner: RecordingTuner, manager: GuestManager[str]
) -> None:
    fake.refuses = "no socket"
    began = time.monotonic()
    plugin = ClaimsAll()
    assert manager.attach(plugin) == {}
    manager.claim({})
    assert not manager.settle()
    assert time.monotonic() - began < 1
    plugin.silent = True
    manager.release()
    assert not manager.settle()
    assert "no socket" in tuner.controller.deferred
    until(manager.unavailable)
    assert manager.unavailable()[0].text == "vm_recorder: guests are not managed: no socket"
    fake.refuses = ""
    until(lambda: tuner.controller.adjusted == [None])


def test_a_libvirt_that_hangs_is_not_waited_for(
    fake: FakeLibvirt, tuner: RecordingTuner, manager: GuestManager[str]
) -> None:
    go = threading.Event()
    manager.attach(ClaimsAll())
    manager.claim({})
    assert manager.settle()
    fake.hang = lambda: go.wait(5)
    manager.claim({("uuid1", 1): Claim("guest1", "p")})
    began = time.monotonic()
    assert not manager.settle(timeouts.GUESTS_RESTORED)
    assert time.monotonic() - began < 1
    assert manager.unavailable()[0].text.endswith("libvirtd does not answer")
    go.set()
    fake.hang = lambda: None
    until(lambda: manager.unavailable() == [])
