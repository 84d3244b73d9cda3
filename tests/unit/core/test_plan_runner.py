# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.kernel import FakeKsm
from tuned_virt.core.engine import Engine, Finding, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.kernel import timeouts
from tuned_virt.plugins import ksm
from tuned_virt.plugins.ksm import state
from tuned_virt.plugins.ksm.conflicts import KsmConflicts


@pytest.fixture
def fs() -> FakeKsm:
    return FakeKsm()


@pytest.fixture
def runner(fs: FakeKsm, tmp_path: Path) -> PlanRunner[ksm.KsmPolicy, ksm.KsmState]:
    engine = Engine(ksm.KsmTuner(), fs, Originals(tmp_path, "boot"), Journal(tmp_path / "journal"))
    return PlanRunner(engine)


Runner = PlanRunner[ksm.KsmPolicy, ksm.KsmState]
MERGE = ksm.parse({"run": "1"})


def test_apply_verify_restore(runner: Runner, fs: FakeKsm) -> None:
    runner.apply(MERGE)
    assert fs.settings()["run"] == "1"
    assert [finding.result for finding in runner.verify(False)] == [Result.PASSED]
    runner.restore()
    assert fs.settings()["run"] == "0"
    assert runner.verify(False) == []


def test_a_restore_that_an_apply_follows_writes_nothing(runner: Runner, fs: FakeKsm) -> None:
    runner.apply(MERGE)
    settled = threading.Event()
    runner.restore_later(settled)
    runner.apply(ksm.parse({"run": "1", "sleep_millisecs": "20"}))
    settled.set()
    time.sleep(0.1)
    assert fs.writes == [("run", "1")]


def test_a_restore_that_no_apply_follows_is_done(runner: Runner, fs: FakeKsm) -> None:
    runner.apply(MERGE)
    settled = threading.Event()
    runner.restore_later(settled)
    assert fs.settings()["run"] == "1"
    settled.set()
    deadline = time.monotonic() + 5
    while fs.settings()["run"] != "0" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fs.settings()["run"] == "0"


def test_at_the_end_what_was_put_off_is_done(runner: Runner, fs: FakeKsm) -> None:
    runner.apply(MERGE)
    runner.restore_later(threading.Event())
    runner._deferred.flush()
    assert fs.settings()["run"] == "0"


def test_flush_leaves_what_is_in_force(runner: Runner, fs: FakeKsm) -> None:
    runner.apply(MERGE)
    runner._deferred.flush()
    assert fs.settings()["run"] == "1"


@pytest.fixture
def go(fs: FakeKsm, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Pages are merged, and no write ends before this is set; few wait for it."""
    monkeypatch.setattr(timeouts, "APPLY", 0.05)
    fs.files[f"{ksm.FOLDER}/pages_shared"] = fs.files[f"{ksm.FOLDER}/pages_sharing"] = "100"
    go, write = threading.Event(), FakeKsm.write

    def slow(self: FakeKsm, path: str, value: str) -> None:
        go.wait(5)
        write(self, path, value)

    monkeypatch.setattr(FakeKsm, "write", slow)
    return go


def test_slow_work_goes_on_by_itself(runner: Runner, fs: FakeKsm, go: threading.Event) -> None:
    started = time.monotonic()
    runner.apply(ksm.parse({"run": "2"}))
    assert time.monotonic() - started < 2
    assert [str(finding) for finding in runner.verify(False)] == [
        "verify: note: ksm: still being applied"
    ]
    runner.restore()
    go.set()
    deadline = time.monotonic() + 5
    while len(fs.writes) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fs.writes == [("run", "2"), ("run", "0")], "in order, however slow"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_comes_next_cuts_a_slow_plan_short(
    runner: Runner, fs: FakeKsm, go: threading.Event
) -> None:
    runner.apply(ksm.parse({"run": "1", "max_page_sharing": "64", "unmerge": "allow"}))
    runner.restore()
    go.set()
    wait_until(lambda: len(fs.writes) == 2)
    wait_until(lambda: not runner.engine.originals.all())
    assert fs.writes == [("run", "2"), ("run", "0")], "max_page_sharing was never written"


def test_an_apply_that_another_has_overtaken_is_not_begun(
    runner: Runner, fs: FakeKsm, go: threading.Event
) -> None:
    runner.apply(ksm.parse({"run": "2"}))
    runner.apply(ksm.parse({"sleep_millisecs": "77"}))
    runner.restore()
    go.set()
    wait_until(lambda: len(fs.writes) == 2)
    wait_until(lambda: not runner.engine.originals.all())
    assert fs.writes == [("run", "2"), ("run", "0")], "a stop does not wait for it"


class Reminder:
    """A keeper that remembers how to have the policy applied again."""

    def __init__(self, again: Callable[[], None]) -> None:
        self.again = again

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def findings(self) -> Iterator[Finding]:
        yield from ()


def test_a_keeper_can_have_its_policy_applied_again(
    runner: Runner, fs: FakeKsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Reminder] = []

    def remind(self: ksm.KsmTuner, *given: Any) -> Reminder:
        made.append(Reminder(given[-1]))
        return made[-1]

    monkeypatch.setattr(ksm.KsmTuner, "controller", remind)
    runner.apply(MERGE)
    fs.files[f"{ksm.FOLDER}/run"] = "0"
    made[0].again()
    wait_until(lambda: fs.settings()["run"] == "1")
    runner.restore()
    made[0].again()
    time.sleep(0.05)
    assert fs.settings()["run"] == "0", "it is held no more"


def test_what_waits_is_done_in_the_order_it_came(
    runner: Runner, fs: FakeKsm, go: threading.Event
) -> None:
    runner.apply(ksm.parse({"run": "2"}))
    runner.restore()
    runner.apply(MERGE)
    go.set()
    deadline = time.monotonic() + 5
    while len(fs.writes) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fs.writes == [("run", "2"), ("run", "0"), ("run", "1")]


def test_what_is_pending_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "RETRY_RESTORE", 0.05)
    fs, baseline = FakeKsm(), Originals(tmp_path, "boot")
    runner = PlanRunner(Engine(ksm.KsmTuner(), fs, baseline, Journal(tmp_path / "journal")))
    runner.apply(ksm.parse({"merge_across_nodes": "0"}))
    fs.files[f"{ksm.FOLDER}/pages_shared"] = fs.files[f"{ksm.FOLDER}/pages_sharing"] = "100"
    runner.restore()
    assert "merge_across_nodes" in baseline.record("ksm").pending
    fs.files[f"{ksm.FOLDER}/pages_shared"] = "0"
    deadline = time.monotonic() + 5
    while baseline.all() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fs.settings()["merge_across_nodes"] == "1"
    assert baseline.all() == {}


class Kept:
    """A keeper that tells what became of it."""

    def __init__(self, made: list[str]) -> None:
        self.made = made

    def start(self) -> None:
        self.made.append("start")

    def stop(self) -> None:
        self.made.append("stop")

    def findings(self) -> list[Finding]:
        return [Finding(Result.NOTE, "kept up")]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(
        ksm.KsmTuner,
        "controller",
        lambda self, policy, *_: Kept(made) if policy.algorithm else None,
    )
    return made


AUTO = ksm.parse({"mode": "auto"})


def test_a_policy_is_kept_up_until_another_comes(runner: Runner, made: list[str]) -> None:
    runner.apply(AUTO)
    assert made == [], "TuneD does not wait for it"
    wait_until(lambda: made == ["start"])
    assert "kept up" in [finding.text for finding in runner.verify(False)]
    runner.restore_later(threading.Event())
    runner.apply(ksm.parse({"mode": "auto"}))
    assert made == ["start"], "the same policy goes on"
    runner.apply(ksm.parse({"mode": "auto", "max_cpu": "9"}))
    wait_until(lambda: made == ["start", "stop", "start"])
    runner.apply(MERGE)
    assert made[3:] == ["stop"]


@pytest.mark.parametrize("end", ["restore", "observe"])
def test_what_is_undone_or_only_observed_is_not_kept_up(
    runner: Runner, made: list[str], end: str
) -> None:
    runner.apply(AUTO)
    if end == "restore":
        runner.restore()
    else:
        runner.apply(AUTO, observe=True)
    assert made == ["start", "stop"]


def test_a_keeper_is_started_before_what_waits_stops_it(
    runner: Runner, go: threading.Event, made: list[str]
) -> None:
    runner.apply(ksm.parse({"mode": "auto", "max_page_sharing": "64", "unmerge": "allow"}))
    runner.restore()
    go.set()
    wait_until(lambda: len(made) == 2)
    assert made == ["start", "stop"], "one that starts later would be stopped by nobody"


def test_a_keeper_has_ended_before_what_it_changed_is_put_back(
    runner: Runner, fs: FakeKsm, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.apply(AUTO)
    fs.files[f"{ksm.FOLDER}/run"] = "1"
    monkeypatch.setattr(ksm.KsmTuner, "controller", lambda *_: None)
    monkeypatch.setattr(KsmConflicts, "hands_off", property(lambda _: "ksm.service masked"))
    plain = FakeKsm.write

    def write(self: FakeKsm, path: str, value: str) -> None:
        made.append("write")
        plain(self, path, value)

    monkeypatch.setattr(FakeKsm, "write", write)
    runner.apply(AUTO)
    assert made == ["start", "stop", "write"]
    assert fs.settings()["run"] == "0"


def test_without_originals_nothing_is_kept_up(
    runner: Runner, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Originals, plugin: str, originals: dict[str, str]) -> None:
        raise OriginalsError("cannot keep originals: No space left on device")

    monkeypatch.setattr(Originals, "keep", full)
    runner.apply(AUTO)
    assert made == []
    assert "nothing is changed: cannot keep" in str(runner.verify(False)[0])


def test_an_internal_error_fails_verify_and_the_thread_lives(
    runner: Runner, fs: FakeKsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(state, "read", lambda fs, conflicts: 1 / 0)
        runner.apply(MERGE)
        [finding] = runner.verify(False)
        assert finding.result is Result.FAILED
        assert "please report it: ZeroDivisionError" in finding.text
    runner.apply(MERGE)
    assert fs.settings()["run"] == "1"


def test_its_thread_lives_while_a_job_waits(runner: Runner, go: threading.Event) -> None:
    def threads() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name == "virt-ksm"]

    assert threads() == []
    runner.apply(ksm.parse({"run": "2"}))
    assert threads() == ["virt-ksm"]
    go.set()
    wait_until(lambda: not threads())
    runner.restore()
    wait_until(lambda: not threads())
    assert runner.verify(False) == []
