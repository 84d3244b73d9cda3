# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop's thread, on a clock that the test drives and files that it writes."""

from __future__ import annotations

import errno
import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import wait_for
from tests.unit.model.guest.test_qemu_process import process
from tests.unit.plugins.ksm.test_sampler import machine
from tuned_virt.core.engine import Result
from tuned_virt.core.guest_source import NO_GUESTS
from tuned_virt.core.journal import Journal
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.plugins.ksm.auto import AutoPolicy
from tuned_virt.plugins.ksm.controller import REPEAT, Clock, KsmController
from tuned_virt.plugins.ksm.controller_state import ControllerStateFile
from tuned_virt.plugins.ksm.decision import ControllerMemory, Phase
from tuned_virt.plugins.ksm.ksmtuned import KsmtunedPolicy
from tuned_virt.plugins.ksm.sampler import Sampler

EAGER = AutoPolicy(eager=True)
KSM = "/sys/kernel/mm/ksm"


class Driven(Clock):
    """Stands still until `advance`; keeps the waits that the loop asked for."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.waits: list[float] = []
        self._asked: list[queue.SimpleQueue[str | None]] = []

    def now(self) -> float:
        return self.time

    def events(
        self, waiting: queue.SimpleQueue[str | None], seconds: float
    ) -> tuple[str, ...] | None:
        self.waits.append(seconds)
        self._asked.append(waiting)
        if len(self.waits) == 1:
            return ()
        event = waiting.get()
        return None if event is None else tuple(filter(None, [event]))

    def advance(self, seconds: float) -> None:
        """Let so much time pass, and the loop look once."""
        looks = len(self.waits)
        self.time += seconds
        self._asked[-1].put("")
        wait_for("a look", lambda: len(self.waits) > looks)


@pytest.fixture
def fs(tmp_path: Path) -> KernelFS:
    fs = machine(tmp_path)
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm", "q -name web")
    return fs


@pytest.fixture
def started(fs: KernelFS, tmp_path: Path) -> Iterator[Any]:
    loops = []

    def start(
        policy: AutoPolicy | KsmtunedPolicy = EAGER, clock: Clock | None = None
    ) -> KsmController:
        record = ControllerStateFile(tmp_path / "ksm.json")
        journal, sampler = Journal(tmp_path / "journal"), Sampler(fs, NO_GUESTS)
        loop = KsmController(policy, fs, journal, record, sampler, clock)
        loops.append(loop)
        loop.start()
        return loop

    yield start
    for loop in loops:
        loop.stop()


def settings(fs: KernelFS) -> list[str]:
    return [fs.read(f"{KSM}/{name}") for name in ("run", "pages_to_scan", "sleep_millisecs")]


def threads() -> int:
    return sum(thread.name == "virt-ksm-loop" for thread in threading.enumerate())


def test_looks_each_second_in_a_burst_and_then_less(started: Any, fs: KernelFS) -> None:
    clock = Driven()
    loop = started(clock=clock)
    wait_for("the first look", lambda: len(clock.waits) == 2)
    assert clock.waits == [0.1, 0.25]
    assert settings(fs)[:2] == ["1", "2857"]
    for _ in range(12):
        clock.advance(1)
    assert clock.waits[-1] == 10.0, "nothing was scanned"
    texts = [str(finding) for finding in loop.findings()]
    assert "verify: note: ksm: maintenance: ksmd finds nothing to scan" in texts


def test_an_event_wakes_it(started: Any, fs: KernelFS, tmp_path: Path) -> None:
    loop = started(AutoPolicy(max_cpu=30, eager=True))
    wait_for("burst", lambda: settings(fs)[1] == "2857")
    process(tmp_path, 8, "qemu-kvm", "/usr/libexec/qemu-kvm", "q -name late")
    loop.wake("guest late started")

    def seen() -> bool:
        made = ControllerStateFile(tmp_path / "ksm.json").load().decisions
        return "guest late (process 8) started" in [decision.why for decision in made]

    wait_for("woken", seen, seconds=5)


def test_stops_at_once_and_writes_nothing_afterwards(
    started: Any, fs: KernelFS, tmp_path: Path
) -> None:
    before = threads()
    loop = started()
    wait_for("burst", lambda: settings(fs)[1] == "2857")
    since = time.monotonic()
    loop.stop()
    assert time.monotonic() - since < 0.1
    assert not (tmp_path / "ksm.json").exists()
    fs.write(f"{KSM}/run", "0")
    loop.wake("guest late started")
    wait_for("the thread's end", lambda: threads() <= before, seconds=1)
    assert settings(fs)[0] == "0"


def test_files_that_vanish_are_said_once_and_looked_for_again(
    started: Any, fs: KernelFS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Driven()
    loop = started(clock=clock)
    wait_for("the first look", lambda: len(clock.waits) == 2)
    (tmp_path / "sys/kernel/mm/ksm/run").rename(tmp_path / "away")
    for _ in range(5):
        clock.advance(10)
    assert caplog.text.count("cannot read /sys/kernel/mm/ksm/run: No such file") == 1
    failed = [finding for finding in loop.findings() if finding.result is Result.FAILED]
    assert "cannot read /sys/kernel/mm/ksm/run" in str(failed[0])
    clock.advance(REPEAT)
    assert caplog.text.count("cannot read /sys/kernel/mm/ksm/run: No such file") == 2
    (tmp_path / "away").rename(tmp_path / "sys/kernel/mm/ksm/run")
    clock.advance(10)
    assert not [finding for finding in loop.findings() if finding.result is Result.FAILED]


def test_an_internal_error_ends_nothing(
    started: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Driven()
    with monkeypatch.context() as broken:
        broken.setattr(Sampler, "sample", lambda *_: 1 / 0)
        loop = started(clock=clock)
        wait_for("the first look", lambda: len(clock.waits) == 2)
        assert "please report it: ZeroDivisionError" in str(next(iter(loop.findings())))
    clock.advance(10)
    assert "ZeroDivisionError" not in "".join(map(str, loop.findings()))
    assert "Traceback" in caplog.text


def test_what_the_kernel_refuses_is_not_taken_for_somebody_elses(
    started: Any, fs: KernelFS, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = KernelFS.write

    def write(self: KernelFS, path: str, value: str) -> None:
        if path.endswith("pages_to_scan"):
            raise KernelFileError(path, "Invalid argument", value)
        plain(self, path, value)

    monkeypatch.setattr(KernelFS, "write", write)
    clock = Driven()
    loop = started(clock=clock)
    wait_for("the first look", lambda: len(clock.waits) == 2)
    assert "pages_to_scan: Invalid argument" in str(next(iter(loop.findings())))
    clock.advance(1)
    assert caplog.text.count("to /sys/kernel/mm/ksm/pages_to_scan: Invalid argument") == 1
    assert "changed by another program" not in caplog.text


def test_a_restarted_tuned_goes_on_where_it_was(started: Any, fs: KernelFS, tmp_path: Path) -> None:
    clock = Driven()
    started(clock=clock)
    wait_for("the first look", lambda: len(clock.waits) == 2)
    for _ in range(12):
        clock.advance(1)
    left = ControllerStateFile(tmp_path / "ksm.json").load()
    assert left.memory.phase is Phase.MAINTENANCE
    again = Driven()
    again.time = clock.time + 5
    loop = started(clock=again)
    wait_for("its first look", lambda: len(again.waits) == 2)
    assert "maintenance" in "".join(map(str, loop.findings()))
    assert (
        ControllerStateFile(tmp_path / "ksm.json").load().decisions[0].why
        == "guest web (process 7) started"
    )


def test_another_policy_begins_anew(started: Any, tmp_path: Path) -> None:
    clock = Driven()
    started(clock=clock)
    wait_for("the first look", lambda: len(clock.waits) == 2)
    other = Driven()
    started(KsmtunedPolicy(monitor_interval=7), other)
    wait_for("its first look", lambda: len(other.waits) == 2)
    assert other.waits[1] == 7.0
    assert ControllerStateFile(tmp_path / "ksm.json").load().algorithm.startswith("KsmtunedPolicy")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot_id": "other"}', '{"algorithm": 1}'])
def test_a_record_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "ksm.json").write_text(text)
    assert ControllerStateFile(tmp_path / "ksm.json").load().memory == ControllerMemory()


def test_a_record_comes_back_as_it_was(started: Any, tmp_path: Path) -> None:
    clock = Driven()
    started(clock=clock)
    wait_for("the first look", lambda: len(clock.waits) == 2)
    content = ControllerStateFile(tmp_path / "ksm.json").load()
    ControllerStateFile(tmp_path / "copy.json").save(content)
    assert ControllerStateFile(tmp_path / "copy.json").load() == content
    assert json.loads((tmp_path / "copy.json").read_text())["memory"]["phase"] == "burst"


@pytest.mark.large
@pytest.mark.parametrize("name", ["pages_to_scan", "sleep_millisecs"])
def test_one_refused_write_ends_no_controller(
    name: str,
    started: Any,
    fs: KernelFS,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain, refusals = KernelFS.write, iter([True])

    def write(self: KernelFS, path: str, value: str) -> None:
        if path.endswith(name) and next(refusals, False):
            raise KernelFileError(path, "Device or resource busy", value)
        plain(self, path, value)

    monkeypatch.setattr(KernelFS, "write", write)
    clock = Driven()
    loop = started(clock=clock)
    wait_for("the first look", lambda: len(clock.waits) == 2)
    assert f"{name}: Device or resource busy" in "".join(map(str, loop.findings()))
    for _ in range(12):
        clock.advance(1)
    found = list(loop.findings())
    assert [one for one in found if one.result is Result.FAILED] == []
    assert "internal error" not in caplog.text
    assert "maintenance" in str(found[-1]), "it has gone on to the next phase"


def test_what_cannot_be_read_fails_verify_and_ends_nothing(
    started: Any, fs: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Driven()
    loop = started(clock=clock)
    wait_for("the first look", lambda: len(clock.waits) == 2)

    def read(self: KernelFS, path: str) -> str:
        raise KernelFileError(path, "Too many open files", code=errno.EMFILE)

    with monkeypatch.context() as patch:
        patch.setattr(KernelFS, "read", read)
        assert "Too many open files" in str(next(iter(loop.findings())))
        clock.advance(1)
    clock.advance(10)
    assert [one for one in loop.findings() if one.result is Result.FAILED] == []
