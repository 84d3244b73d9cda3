# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel refuses threads for a while: what was to be done is done, then or later."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.kernel import FakeKsm
from tuned_virt.core import later as shared
from tuned_virt.core.deferred_restore import DeferredRestore
from tuned_virt.core.engine import Engine, Finding
from tuned_virt.core.journal import Journal
from tuned_virt.core.later import Later
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.kernel import threads, timeouts
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker
from tuned_virt.plugins import ksm

Runner = PlanRunner[ksm.KsmPolicy, ksm.KsmState]


class Limit:
    """How many threads the kernel gives at the moment."""

    def __init__(self) -> None:
        self.reached = False
        self._start = threads.run

    def run(self, thread: threading.Thread) -> None:
        if self.reached:
            raise threads.NoThreadError("no thread can be started (can't start new thread)")
        self._start(thread)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    made = Limit()
    monkeypatch.setattr(threads, "run", made.run)
    monkeypatch.setattr(timeouts, "LATER", 0.01)
    return made


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def noted(done: list[str], word: str) -> bool:
    """A step that can be done at once."""
    done.append(word)
    return True


class Loop:
    """A controller that says when it has begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def start(self) -> None:
        threads.start(lambda: self.begun.append("begun"), "loop")

    def stop(self) -> None:
        self.begun.append("stopped")

    def findings(self) -> Iterator[Finding]:
        return iter(())


class SlowKsm(ksm.KsmTuner):
    """Every change is slow, and a policy has a loop."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop = loop

    def decide(self, policy, state, originals):  # type: ignore[no-untyped-def,override]
        plan = ksm.KsmTuner.decide(policy, state, originals)
        return replace(plan, changes=tuple(replace(one, slow=True) for one in plan.changes))

    def controller(self, policy, plan, fs, journal, replan):  # type: ignore[no-untyped-def,override]
        return self.loop if policy.settings else None


@pytest.fixture
def slow(tmp_path: Path) -> tuple[Runner, FakeKsm, Loop]:
    fs, loop = FakeKsm(), Loop()
    engine = Engine(SlowKsm(loop), fs, Originals(tmp_path, "boot"), Journal(tmp_path / "journal"))
    return PlanRunner(engine), fs, loop


def test_tuneds_thread_does_what_no_other_can(
    limit: Limit, slow: tuple[Runner, FakeKsm, Loop]
) -> None:
    runner, fs, _ = slow
    limit.reached = True
    runner.apply(ksm.parse({"run": "1"}))
    assert fs.settings()["run"] == "1"
    runner.restore()
    assert fs.settings()["run"] == "0"


def test_a_loop_starts_once_a_thread_can_be_had(
    limit: Limit, slow: tuple[Runner, FakeKsm, Loop]
) -> None:
    runner, _, loop = slow
    held = threading.Event()
    shared.call_later(held.is_set)  # its thread is there already
    limit.reached = True
    runner.apply(ksm.parse({"run": "1"}))
    time.sleep(0.1)
    assert loop.begun == []
    limit.reached = False
    until(lambda: loop.begun == ["begun"])
    held.set()
    runner.restore()
    assert loop.begun == ["begun", "stopped"]


def test_a_restore_that_cannot_wait_is_done_at_once(
    limit: Limit, slow: tuple[Runner, FakeKsm, Loop]
) -> None:
    runner, fs, _ = slow
    runner.apply(ksm.parse({"run": "1"}))
    limit.reached = True
    runner.restore_later(threading.Event())
    assert fs.settings()["run"] == "0"


def test_a_pool_without_threads(limit: Limit) -> None:
    limit.reached = True
    pool = KeyedWorkerPool("test", threads=4, patience=5)
    jobs = {str(n): functools.partial(pow, n, 2) for n in range(9)}
    assert pool.run(jobs) == {str(n): n * n for n in range(9)}


def test_what_waits_is_done_with_the_next(limit: Limit) -> None:
    later, done = Later(), list[str]()
    limit.reached = True
    later.call(functools.partial(noted, done, "first"))
    limit.reached = False
    later.call(functools.partial(noted, done, "second"))
    until(lambda: done == ["first", "second"])


def test_a_restore_that_was_not_put_off_does_not_wait(limit: Limit) -> None:
    restored: list[str] = []
    deferred = DeferredRestore("test", lambda: restored.append("restored"))
    limit.reached = True
    with pytest.raises(threads.NoThreadError):
        deferred.schedule(seconds=0)
    deferred.flush()
    assert restored == []


class Served:
    """A reconciler that is told once libvirt is asked."""

    defined = False

    def __init__(self) -> None:
        self.told: list[str] = []

    def reconcile(self, view: GuestsView) -> None:
        self.told.append("guests")

    def unreachable(self, why: str) -> None:
        self.told.append(why)


def test_libvirt_is_asked_once_a_thread_can_be_had(
    limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "missing", lambda uri: "it is not installed")
    worker, served, held = LibvirtWorker("test:///x"), Served(), threading.Event()
    shared.call_later(held.is_set)
    limit.reached = True
    worker.register(served)
    assert worker.unavailable == "no thread can be started (can't start new thread)"
    limit.reached = False
    until(lambda: served.told == ["it is not installed"])
    held.set()
    worker.unregister(served)


def test_that_libvirt_is_missing_is_known_when_it_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits a second time for an answer that is known, where no thread was refused."""
    monkeypatch.setattr(binding, "missing", lambda uri: "it is not installed")
    monkeypatch.setattr(binding, "not_installed", lambda: "it is not installed")
    worker, served = LibvirtWorker("test:///y"), Served()
    worker.register(served)
    until(lambda: worker._worker is None)
    monkeypatch.setattr(binding, "work", lambda *_: threading.current_thread())
    worker.register(served)
    assert worker.unavailable == "it is not installed"
