# SPDX-License-Identifier: GPL-2.0-or-later
"""Which run of a guest is which, whatever processes say of themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from tests.unit.libvirt_api.fake_binding import FakeDomain
from tuned_virt.guests.originals import GuestOriginal
from tuned_virt.guests.tracker import GuestTracker
from tuned_virt.kernel.files import KernelFS
from tuned_virt.kernel.procfs import start_time
from tuned_virt.model.guest.qemu_threads import ThreadFinder

PID, UUID = os.getpid(), "uuid1"
START = start_time(PID) or 0
SEEN = GuestOriginal("fake:///", UUID, "web1", 1, PID, START)


class Processes:
    """Which guests' processes can be seen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pids: dict[str, int] = {UUID: PID}
        monkeypatch.setattr(ThreadFinder, "find", lambda _, guests: dict(self.pids))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


def keys(kept: Mapping[str, GuestOriginal], number: int = 1) -> set[str]:
    """As a TuneD sees it that has just started."""
    web = FakeDomain(number, "web1", uuid=UUID).listed()
    return set(GuestTracker(KernelFS()).look([web], 0, kept))


def test_a_run_is_known_by_what_is_kept_of_it_where_its_process_is_not_to_be_seen(
    processes: Processes,
) -> None:
    assert keys({}) == {SEEN.key}
    processes.pids = {}  # another process claims its UUID, as any user's may
    assert keys({}) == {f"{UUID}/#1"}
    assert keys({SEEN.key: SEEN}) == {SEEN.key}
    assert keys({SEEN.key: SEEN}, number=2) == {f"{UUID}/#2"}, "another run"


def test_and_by_what_was_kept_while_its_process_was_not(processes: Processes) -> None:
    hidden = GuestOriginal("fake:///", UUID, "web1", 1)
    assert keys({hidden.key: hidden}) == {hidden.key}


def test_a_run_whose_process_has_ended_is_another(processes: Processes) -> None:
    ended = GuestOriginal("fake:///", UUID, "web1", 1, PID, START - 1)
    assert keys({ended.key: ended}) == {SEEN.key}


def test_nothing_of_libvirts_is_held_at_rest(processes: Processes) -> None:
    tracker = GuestTracker(KernelFS())
    web = FakeDomain(1, "web1", uuid=UUID).listed()
    [seen] = tracker.look([web], 0).values()
    tracker.rest()
    kept = tracker.run(seen.active.run)
    assert kept is not None
    assert kept.active.domain is None
    assert tracker.look([web], 1e9) == {seen.key: seen}, "it is the same run, seen when it was"


def test_a_process_that_is_known_is_not_looked_for_again(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may claim its UUID meanwhile."""
    monkeypatch.setattr(ThreadFinder, "find", lambda _, guests: dict.fromkeys(guests, PID + 1))
    web = FakeDomain(1, "web1", uuid=UUID).listed()
    [seen] = GuestTracker(KernelFS()).look([web], 0, {SEEN.key: SEEN}).values()
    assert (seen.pid, seen.start) == (PID, START)
