# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tuned_virt.core.later import Later
from tuned_virt.kernel import timeouts


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_steps_are_done_by_one_thread_until_none_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timeouts, "LATER", 0.01)
    later, done, tries = Later(), list[str](), iter([False, False, True])

    def note() -> bool:
        done.append(threading.current_thread().name)
        return True

    def fail() -> bool:
        raise ValueError("it is broken")

    def retry() -> bool:
        return next(tries) and note()

    for step in (fail, retry, note):
        later.call(step)
    assert done == [], "nobody who calls it waits for a step"
    wait_until(lambda: len(done) == 2)
    assert done == ["virt-later", "virt-later"]
    assert next(tries, None) is None
    assert "internal error, please report it" in caplog.text
    wait_until(lambda: not later._threaded)
    later.call(note)
    wait_until(lambda: len(done) == 3)
