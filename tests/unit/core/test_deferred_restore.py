# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import threading
import time

import pytest

from tuned_virt.core.deferred_restore import DeferredRestore


@pytest.fixture
def restored() -> list[str]:
    return []


@pytest.fixture
def deferred(restored: list[str]) -> DeferredRestore:
    return DeferredRestore("test", lambda: restored.append(threading.current_thread().name))


def wait_for(restored: list[str]) -> None:
    deadline = time.monotonic() + 5
    while not restored and time.monotonic() < deadline:
        time.sleep(0.005)


def test_it_waits_for_the_event_then_restores_once(
    deferred: DeferredRestore, restored: list[str]
) -> None:
    applied = threading.Event()
    deferred.schedule(applied)
    time.sleep(0.05)
    assert restored == []
    applied.set()
    wait_for(restored)
    deferred.flush()
    assert restored == ["virt-test-later"]


def test_it_restores_when_the_time_is_over(deferred: DeferredRestore, restored: list[str]) -> None:
    deferred.schedule(seconds=0.02)
    wait_for(restored)
    assert len(restored) == 1


def test_an_apply_cancels_it(deferred: DeferredRestore, restored: list[str]) -> None:
    applied = threading.Event()
    deferred.schedule(applied)
    assert deferred.cancel()
    assert not deferred.cancel()
    applied.set()
    time.sleep(0.05)
    deferred.flush()
    assert restored == []


def test_one_that_is_scheduled_anew_waits_anew(
    deferred: DeferredRestore, restored: list[str]
) -> None:
    first, second = threading.Event(), threading.Event()
    deferred.schedule(first)
    deferred.schedule(second)
    first.set()
    time.sleep(0.05)
    assert restored == []
    second.set()
    wait_for(restored)
    assert len(restored) == 1


def test_the_processs_end_does_not_wait(deferred: DeferredRestore, restored: list[str]) -> None:
    deferred.schedule(threading.Event())
    deferred.flush()
    assert restored == [threading.current_thread().name]
