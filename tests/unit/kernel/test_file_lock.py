# SPDX-License-Identifier: GPL-2.0-or-later
"""A lock that somebody does not give back: who that is, and nobody waits for ever."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError, UnheldOriginals
from tuned_virt.core.plan import Change
from tuned_virt.kernel import file_lock, procfs, timeouts
from tuned_virt.kernel.files import KernelFileError, KernelFS

PATIENCE = 0.05


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The lock of originals in tmp_path, taken."""
    monkeypatch.setattr(timeouts, "LOCK", PATIENCE)
    monkeypatch.setattr(file_lock, "_in_vain", {})
    lock = os.open(tmp_path / "baseline.lock", os.O_RDWR | os.O_CREAT, 0o600)
    file_lock.take(lock, "theirs")
    yield lock
    os.close(lock)


def test_a_lock_that_is_not_released_is_an_error_that_names_its_holder(
    held: int, tmp_path: Path
) -> None:
    name = (Path("/proc/self/comm")).read_text().strip()
    holder = rf"process {os.getpid()} \({name}\) holds its lock and does not release it"
    for originals in (Originals(tmp_path, "boot"), UnheldOriginals(tmp_path, "boot")):
        with pytest.raises(OriginalsError, match=holder):
            originals.keep("ksm", {"run": "0"})
    assert not (tmp_path / "baseline.json").exists()
    began = time.monotonic()
    for _ in range(50):  # as many as an apply may make
        with pytest.raises(OriginalsError):
            Originals(tmp_path, "boot").keep("ksm", {"run": "0"})
    assert time.monotonic() - began < 50 * PATIENCE
    fcntl.flock(held, fcntl.LOCK_UN)
    Originals(tmp_path, "boot").keep("ksm", {"run": "0"})
    assert Originals(tmp_path, "boot").record("ksm").originals == {"run": "0"}


def test_another_holder_is_waited_for_anew(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = os.open(tmp_path / "baseline.lock", os.O_RDWR)
    for holder in (7, 8):
        monkeypatch.setattr(file_lock, "_holder", lambda _lock, holder=holder: holder)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            file_lock.take(lock, "ours")
        assert time.monotonic() - began >= PATIENCE, holder
    os.close(lock)


def test_what_is_said_of_a_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    status = {"Name": "tuned-virt", "State": "T (stopped)"}
    monkeypatch.setattr(procfs, "status", lambda *_: status)
    assert file_lock._words(12) == "process 12 (tuned-virt), which is stopped,"
    status["State"] = "S (sleeping)"
    assert file_lock._words(12) == "process 12 (tuned-virt)"
    assert file_lock._words(file_lock.UNKNOWN) == "another process"


def test_locks_that_cannot_be_read_name_nobody(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_lock._holder(held) == os.getpid()

    def unreadable(_fs: KernelFS, path: str) -> str:
        raise KernelFileError(path, "Input/output error")

    monkeypatch.setattr(KernelFS, "read", unreadable)
    assert file_lock._holder(held) == file_lock.UNKNOWN
    assert file_lock._words(os.getpid()) == "another process"


def test_a_journal_that_somebody_has_locked_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timeouts, "LOCK", PATIENCE)
    monkeypatch.setattr(file_lock, "_in_vain", {})
    file = tmp_path / "journal.jsonl"
    change = Change("run", "/sys/kernel/mm/ksm/run", "0", "1", "it is asked for")
    with file.open("a") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        Journal(file).add("ksm", change)
    assert f"process {os.getpid()} " in caplog.text
    Journal(file).add("ksm", change)
    assert [entry.setting for entry in Journal(file).entries()] == ["run"]
