# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows disks and guests, with events of our own in place of udev's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.blockdev import LOOP, FakeDisks
from tuned_virt.core import replan_trigger as watching
from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.core.replan_trigger import ReplanTrigger
from tuned_virt.plugins.blk_elevator_virt import DisksTuner, parse, udev_events
from tuned_virt.plugins.blk_elevator_virt.policy_in_force import PolicyInForce
from tuned_virt.plugins.blk_elevator_virt.udev_events import DiskEvents


class Observer:
    """In place of pyudev's: the unit tier gets no events of the kernel."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self.wake = wake
        self.running = False

    def start(self) -> None:
        self.running = True

    def send_stop(self) -> None:
        self.running = False


@pytest.fixture
def observers(monkeypatch: pytest.MonkeyPatch) -> list[Observer]:
    made: list[Observer] = []

    def observer(wake: Callable[[str], None]) -> Any:
        made.append(Observer(wake))
        return made[-1]

    monkeypatch.setattr(udev_events, "observer", observer)
    monkeypatch.setattr(watching, "SETTLE", 0.05)
    return made


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.large
def test_events_that_come_together_are_one_look(observers: list[Observer]) -> None:
    looks = threading.Semaphore(0)
    watch = ReplanTrigger("disks", looks.release)
    watch.follow(DiskEvents())
    watch.start()
    for number in range(20):
        watch.wake(f"add sd{number}")
    assert looks.acquire(timeout=20)
    assert not looks.acquire(timeout=0.2)
    watch.wake("remove sd1")
    assert looks.acquire(timeout=20)
    watch.stop()
    watch.wake("add sd1")
    assert not looks.acquire(timeout=0.2)
    assert not observers[0].running


def test_events_without_end_are_looked_at_anyhow(
    observers: list[Observer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LONGEST", 0.2)
    looks = threading.Semaphore(0)
    watch = ReplanTrigger("disks", looks.release)
    watch.follow(DiskEvents())
    watch.start()
    deadline = time.monotonic() + 30
    while not looks.acquire(timeout=0.01):
        assert time.monotonic() < deadline
        watch.wake("change sda")
    watch.stop()


def test_without_pyudev_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(udev_events, "pyudev", None)
    watch = ReplanTrigger("blk_elevator_virt", lambda: None)
    watch.follow(DiskEvents())
    watch.start()
    [finding] = watch.findings()
    assert str(finding) == (
        "verify: note: blk_elevator_virt: disks added later are not set: python3-pyudev is not"
        " installed"
    )
    assert "python3-pyudev is not installed" in caplog.text
    watch.stop()


def test_a_disk_added_later_is_set_and_one_reset_is_set_again(
    tmp_path: Path, observers: list[Observer]
) -> None:
    fs = FakeDisks(tmp_path / "root")
    fs.add("loop0", f"{LOOP}loop0")
    tuner = DisksTuner(folder=tmp_path)
    engine = Engine(tuner, fs, Originals(tmp_path, "boot"), Journal(tmp_path / "journal"))
    runner = PlanRunner(engine)
    asked = parse({"role": "host", "host_other": "bfq"})
    runner.apply(asked)
    runner.apply(asked)
    assert PolicyInForce(tmp_path).load() == asked
    fs.add("loop1", f"{LOOP}loop1", active="kyber")
    observers[0].wake("add loop1")
    wait_for(lambda: fs.scheduler("loop1") == "bfq")
    wait_for(lambda: len(runner.verify(False)) == 2)
    fs.write("/sys/block/loop0/queue/scheduler", "none")
    observers[0].wake("change loop0")
    wait_for(lambda: fs.scheduler("loop0") == "bfq")
    fs.pull("loop0")
    observers[0].wake("remove loop0")
    wait_for(lambda: len(runner.verify(False)) == 1)
    runner.restore()
    wait_for(lambda: engine.originals.all() == {})  # a look under way comes first
    assert fs.scheduler("loop1") == "kyber"
    wait_for(lambda: PolicyInForce(tmp_path).load() is None)
    assert [one.running for one in observers] == [False]
