# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.kernel import FakeKsm
from tuned_virt.core import plan_runner
from tuned_virt.core.engine import Engine, Finding, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Baseline, BaselineError
from tuned_virt.core.plan_runner import Steward
from tuned_virt.plugins import ksm
from tuned_virt.plugins.ksm import state
from tuned_virt.plugins.ksm.conflicts import Masters


@pytest.fixture
def fs() -> FakeKsm:
    return FakeKsm()


@pytest.fixture
def keeper(fs: FakeKsm, tmp_path: Path) -> Steward[ksm.KsmPolicy, ksm.KsmState]:
    engine = Engine(ksm.KsmTuner(), fs, Baseline(tmp_path, "boot"), Journal(tmp_path / "journal"))
    return Steward(engine)


Keeper = Steward[ksm.KsmPolicy, ksm.KsmState]
MERGE = ksm.parse({"run": "1"})


def test_apply_verify_restore(keeper: Keeper, fs: FakeKsm) -> None:
    keeper.apply(MERGE)
    assert fs.settings()["run"] == "1"
    assert [finding.result for finding in keeper.verify(False)] == [Result.PASSED]
    keeper.restore()
    assert fs.settings()["run"] == "0"
    assert keeper.verify(False) == []


def test_a_restore_that_an_apply_follows_writes_nothing(keeper: Keeper, fs: FakeKsm) -> None:
    keeper.apply(MERGE)
    settled = threading.Event()
    keeper.restore_later(settled)
    keeper.apply(ksm.parse({"run": "1", "sleep_millisecs": "20"}))
    settled.set()
    time.sleep(0.1)
    assert fs.writes == [("run", "1")]


def test_a_restore_that_no_apply_follows_is_done(keeper: Keeper, fs: FakeKsm) -> None:
    keeper.apply(MERGE)
    settled = threading.Event()
    keeper.restore_later(settled)
    assert fs.settings()["run"] == "1"
    settled.set()
    deadline = time.monotonic() + 5
    while fs.settings()["run"] != "0" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fs.settings()["run"] == "0"


def test_at_the_end_what_was_put_off_is_done(keeper: Keeper, fs: FakeKsm) -> None:
    keeper.apply(MERGE)
    keeper.restore_later(threading.Event())
    keeper.flush()
    assert fs.settings()["run"] == "0"


def test_flush_leaves_what_is_in_force(keeper: Keeper, fs: FakeKsm) -> None:
    keeper.apply(MERGE)
    keeper.flush()
    assert fs.settings()["run"] == "1"


@pytest.fixture
def go(fs: FakeKsm, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Pages are merged, and no write ends before this is set; few wait for it."""
    monkeypatch.setattr(plan_runner, "PATIENCE", 0.05)
    fs.files[f"{ksm.FOLDER}/pages_shared"] = fs.files[f"{ksm.FOLDER}/pages_sharing"] = "100"
    go, write = threading.Event(), FakeKsm.write

    def slow(self: FakeKsm, path: str, value: str) -> None:
        go.wait(5)
        write(self, path, value)

    monkeypatch.setattr(FakeKsm, "write", slow)
    return go


def test_slow_work_goes_on_by_itself(keeper: Keeper, fs: FakeKsm, go: threading.Event) -> None:
    started = time.monotonic()
    keeper.apply(ksm.parse({"run": "2"}))
    assert time.monotonic() - started < 2
    assert [str(finding) for finding in keeper.verify(False)] == [
        "verify: note: ksm: still being applied"
    ]
    keeper.restore()
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
    keeper: Keeper, fs: FakeKsm, go: threading.Event
) -> None:
    keeper.apply(ksm.parse({"run": "1", "max_page_sharing": "64", "unmerge": "allow"}))
    keeper.restore()
    go.set()
    wait_until(lambda: len(fs.writes) == 2)
    wait_until(lambda: not keeper.engine.baseline.records())
    assert fs.writes == [("run", "2"), ("run", "0")], "max_page_sharing was never written"


def test_an_apply_that_another_has_overtaken_is_not_begun(
    keeper: Keeper, fs: FakeKsm, go: threading.Event
) -> None:
    keeper.apply(ksm.parse({"run": "2"}))
    keeper.apply(ksm.parse({"sleep_millisecs": "77"}))
    keeper.restore()
    go.set()
    wait_until(lambda: len(fs.writes) == 2)
    wait_until(lambda: not keeper.engine.baseline.records())
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
    keeper: Keeper, fs: FakeKsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Reminder] = []

    def remind(self: ksm.KsmTuner, *given: Any) -> Reminder:
        made.append(Reminder(given[-1]))
        return made[-1]

    monkeypatch.setattr(ksm.KsmTuner, "keeper", remind)
    keeper.apply(MERGE)
    fs.files[f"{ksm.FOLDER}/run"] = "0"
    made[0].again()
    wait_until(lambda: fs.settings()["run"] == "1")
    keeper.restore()
    made[0].again()
    time.sleep(0.05)
    assert fs.settings()["run"] == "0", "it is held no more"


def test_what_waits_is_done_in_the_order_it_came(
    keeper: Keeper, fs: FakeKsm, go: threading.Event
) -> None:
    keeper.apply(ksm.parse({"run": "2"}))
    keeper.restore()
    keeper.apply(MERGE)
    go.set()
    deadline = time.monotonic() + 5
    while len(fs.writes) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fs.writes == [("run", "2"), ("run", "0"), ("run", "1")]


def test_what_is_pending_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_runner, "RETRY", 0.05)
    fs, baseline = FakeKsm(), Baseline(tmp_path, "boot")
    keeper = Steward(Engine(ksm.KsmTuner(), fs, baseline, Journal(tmp_path / "journal")))
    keeper.apply(ksm.parse({"merge_across_nodes": "0"}))
    fs.files[f"{ksm.FOLDER}/pages_shared"] = fs.files[f"{ksm.FOLDER}/pages_sharing"] = "100"
    keeper.restore()
    assert "merge_across_nodes" in baseline.record("ksm").pending
    fs.files[f"{ksm.FOLDER}/pages_shared"] = "0"
    deadline = time.monotonic() + 5
    while baseline.records() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fs.settings()["merge_across_nodes"] == "1"
    assert baseline.records() == {}


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
        "keeper",
        lambda self, policy, *_: Kept(made) if policy.law else None,
    )
    return made


AUTO = ksm.parse({"mode": "auto"})


def test_a_policy_is_kept_up_until_another_comes(keeper: Keeper, made: list[str]) -> None:
    keeper.apply(AUTO)
    wait_until(lambda: made == ["start"])
    assert "kept up" in [finding.text for finding in keeper.verify(False)]
    keeper.restore_later(threading.Event())
    keeper.apply(ksm.parse({"mode": "auto"}))
    assert made == ["start"], "the same policy goes on"
    keeper.apply(ksm.parse({"mode": "auto", "max_cpu": "9"}))
    wait_until(lambda: made == ["start", "stop", "start"])
    keeper.apply(MERGE)
    assert made[3:] == ["stop"]


@pytest.mark.parametrize("end", ["restore", "observe"])
def test_what_is_undone_or_only_observed_is_not_kept_up(
    keeper: Keeper, made: list[str], end: str
) -> None:
    keeper.apply(AUTO)
    if end == "restore":
        keeper.restore()
    else:
        keeper.apply(AUTO, observe=True)
    assert made == ["start", "stop"]


def test_a_keeper_is_started_before_what_waits_stops_it(
    keeper: Keeper, go: threading.Event, made: list[str]
) -> None:
    keeper.apply(ksm.parse({"mode": "auto", "max_page_sharing": "64", "unmerge": "allow"}))
    keeper.restore()
    go.set()
    wait_until(lambda: len(made) == 2)
    assert made == ["start", "stop"], "one that starts later would be stopped by nobody"


def test_a_keeper_has_ended_before_what_it_changed_is_put_back(
    keeper: Keeper, fs: FakeKsm, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.apply(AUTO)
    fs.files[f"{ksm.FOLDER}/run"] = "1"
    monkeypatch.setattr(ksm.KsmTuner, "keeper", lambda *_: None)
    monkeypatch.setattr(Masters, "hands_off", property(lambda _: "ksm.service masked"))
    plain = FakeKsm.write

    def write(self: FakeKsm, path: str, value: str) -> None:
        made.append("write")
        plain(self, path, value)

    monkeypatch.setattr(FakeKsm, "write", write)
    keeper.apply(AUTO)
    assert made == ["start", "stop", "write"]
    assert fs.settings()["run"] == "0"


def test_without_originals_nothing_is_kept_up(
    keeper: Keeper, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Baseline, plugin: str, originals: dict[str, str]) -> None:
        raise BaselineError("cannot keep originals: No space left on device")

    monkeypatch.setattr(Baseline, "keep", full)
    keeper.apply(AUTO)
    assert made == []
    assert "nothing is changed: cannot keep" in str(keeper.verify(False)[0])


def test_an_internal_error_fails_verify_and_the_thread_lives(
    keeper: Keeper, fs: FakeKsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(state, "read", lambda fs, masters: 1 / 0)
        keeper.apply(MERGE)
        [finding] = keeper.verify(False)
        assert finding.result is Result.FAILED
        assert "please report it: ZeroDivisionError" in finding.text
    keeper.apply(MERGE)
    assert fs.settings()["run"] == "1"
