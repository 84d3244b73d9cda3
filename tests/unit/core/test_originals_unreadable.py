# SPDX-License-Identifier: GPL-2.0-or-later
"""A moment in which originals, or settings of the kernel, cannot be read or forgotten."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.failing import AT, CODES, fail
from tests.unit.fake_ksm import FakeKsm
from tests.unit.hugetlb import M2, Counts, FakeHugetlb, Memory
from tuned_virt import cli
from tuned_virt.cli import daemon, restore, status
from tuned_virt.core.engine import Engine, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError, UnheldOriginals
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.plugins import ksm
from tuned_virt.plugins.hugepages_numa.plugin import HugepagesTuner

MERGE = ksm.parse({"run": "1", "sleep_millisecs": "50"})
Runner = PlanRunner[ksm.KsmPolicy, ksm.KsmState]


@pytest.fixture
def fs() -> FakeKsm:
    return FakeKsm()


@pytest.fixture
def runner(fs: FakeKsm, tmp_path: Path) -> Runner:
    engine = Engine(ksm.KsmTuner(state=tmp_path), fs, kept(tmp_path), Journal(tmp_path / "journal"))
    return PlanRunner(engine)


def kept(folder: Path) -> Originals:
    return Originals(folder, "boot")


def forget_what_was_seen(runner: Runner, folder: Path) -> None:
    runner.engine.originals = kept(folder)


each = pytest.mark.parametrize(("at", "code"), [(at, code) for at in AT for code in CODES])


@each
def test_apply_changes_nothing_and_verify_says_why(
    at: str, code: int, runner: Runner, fs: FakeKsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path).keep("ksm", {"run": "0"})
    with monkeypatch.context() as patch:
        fail(patch, at, code)
        runner.apply(MERGE)
    assert fs.writes == []
    [found] = [one for one in runner.verify(False) if one.result is Result.FAILED]
    assert os.strerror(code) in str(found)
    runner.apply(MERGE)
    runner.restore()
    assert fs.settings() == FakeKsm().settings()
    assert kept(tmp_path).all() == {}


@each
def test_verify_fails_and_loses_nothing(
    at: str, code: int, runner: Runner, fs: FakeKsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.apply(MERGE)
    with monkeypatch.context() as patch:
        fail(patch, at, code)
        forget_what_was_seen(runner, tmp_path)
        [found] = runner.verify(False)
    assert found.result is Result.FAILED
    assert os.strerror(code) in found.text
    runner.restore()
    assert fs.settings() == FakeKsm().settings()


@each
def test_off_is_tried_again(
    at: str, code: int, runner: Runner, fs: FakeKsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.apply(MERGE)
    with monkeypatch.context() as patch:
        fail(patch, at, code)
        forget_what_was_seen(runner, tmp_path)
        runner.restore()
        assert fs.settings()["run"] == "1"
    runner._deferred.flush()
    assert fs.settings() == FakeKsm().settings()
    assert kept(tmp_path).all() == {}


@pytest.fixture
def command(fs: FakeKsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: daemon.Daemon) -> None:
        raise daemon.NotRunning("TuneD is not running")

    monkeypatch.setattr(daemon.Daemon, "__init__", gone)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(restore, "UnheldOriginals", lambda: UnheldOriginals(tmp_path, "boot"))
    monkeypatch.setattr(status, "Originals", lambda: kept(tmp_path))
    for module in (restore, status):
        monkeypatch.setattr(module, "KernelFS", lambda: fs)
    monkeypatch.setattr(restore, "Journal", lambda: Journal(tmp_path / "journal"))
    monkeypatch.setattr(
        status,
        "_machine",
        lambda fs: {
            "ksm": None,
            "loop": None,
            "allocating": None,
            "guests": [],
            "guests_remark": "",
            "nodes": [],
        },
    )


@each
def test_restore_and_status_say_it(
    at: str,
    code: int,
    command: None,
    fs: FakeKsm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fs.files[f"{ksm.FOLDER}/run"] = "1"
    kept(tmp_path).keep("ksm", {"run": "0"})
    kept(tmp_path).release("ksm")
    with monkeypatch.context() as patch:
        fail(patch, at, code)
        assert cli.main(["restore"]) == 2
        assert cli.main(["status"]) == 1
    said = capsys.readouterr()
    assert os.strerror(code) in said.out
    assert os.strerror(code) in said.err
    assert fs.writes == []
    assert cli.main(["restore"]) == 0
    assert fs.writes == [("run", "0")]


def test_what_was_set_aside_is_said_with_exit_1(
    command: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "baseline.json").write_text("{")
    assert cli.main(["restore"]) == 1
    assert "was moved aside" in capsys.readouterr().out
    assert cli.main(["status"]) == 1
    assert "was moved aside" in capsys.readouterr().out


def test_originals_that_are_back_are_not_written_over_newer_values(
    runner: Runner, fs: FakeKsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.apply(MERGE)
    forget = Originals.forget

    def refuses(*_what: object) -> None:
        raise OriginalsError("cannot keep originals: No space left on device")

    monkeypatch.setattr(Originals, "forget", refuses)
    runner.restore()
    assert fs.settings() == FakeKsm().settings()
    assert kept(tmp_path).record("ksm").originals, "they could not be forgotten"
    fs.files[f"{ksm.FOLDER}/sleep_millisecs"] = "77"
    runner.apply(MERGE)
    assert fs.settings()["run"] == "0", "nothing is changed while they cannot be forgotten"
    monkeypatch.setattr(Originals, "forget", forget)
    runner.apply(MERGE)
    runner.restore()
    assert fs.settings()["sleep_millisecs"] == "77", "the administrator's own"
    assert kept(tmp_path).all() == {}


def test_forgetting_is_tried_again(
    runner: Runner, fs: FakeKsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.apply(MERGE)
    with monkeypatch.context() as patch:

        def refuses(*_what: object) -> None:
            raise OriginalsError("cannot keep originals: No space left on device")

        patch.setattr(Originals, "forget", refuses)
        runner.restore()
    runner._deferred.flush()
    assert kept(tmp_path).all() == {}


def test_no_controllers_record_is_left_by_a_restore(command: None, tmp_path: Path) -> None:
    (tmp_path / "ksm.json").write_text("{}")
    kept(tmp_path).keep("ksm", {"run": "0"})
    kept(tmp_path).release("ksm")
    tuner = ksm.KsmTuner(state=tmp_path)
    Engine(tuner, FakeKsm(), kept(tmp_path), Journal(tmp_path / "journal")).restore()
    assert not (tmp_path / "ksm.json").exists()


class EachRead:
    """Fails one read of the kernel's files, the one of a number; counts them all."""

    def __init__(self, patch: pytest.MonkeyPatch, kind: type[KernelFS]) -> None:
        self.count, self.failing = 0, -1
        read = kind.read

        def counted(fs: KernelFS, path: str) -> str:
            self.count += 1
            if self.count == self.failing:
                raise KernelFileError(path, os.strerror(errno.EIO), code=errno.EIO)
            return read(fs, path)

        patch.setattr(kind, "read", counted)

    def begin(self, failing: int = -1) -> None:
        """Count anew."""
        self.count, self.failing = 0, failing


def made(tuner: Any, fs: KernelFS, folder: Path) -> PlanRunner[Any, Any]:
    return PlanRunner(Engine(tuner, fs, kept(folder), Journal(folder / "journal")))


def ksm_with_pages(folder: Path) -> tuple[Any, KernelFS, dict[str, str]]:
    return ksm.KsmTuner(state=folder), FakeKsm(), {"run": "1", "use_zero_pages": "1"}


def pools(folder: Path) -> tuple[Any, KernelFS, dict[str, str]]:
    fs = FakeHugetlb({0: Memory(8 << 20, 4 << 20)}, {(0, M2): Counts(nr=4)})
    options = {"pages_2M": "0:64", "transparent_hugepages": "never"}
    return HugepagesTuner(folder=folder), fs, options


def settings(fs: KernelFS) -> object:
    if isinstance(fs, FakeHugetlb):
        return fs.persistent(), dict(fs.files)
    assert isinstance(fs, FakeKsm)
    return fs.settings()


@pytest.mark.parametrize("make", [ksm_with_pages, pools])
def test_each_read_of_an_off_may_fail_once(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner, fs, options = make(tmp_path)
    reads = EachRead(monkeypatch, type(fs))
    before = settings(fs)
    runner = made(tuner, fs, tmp_path)
    number = 0
    while number <= reads.count:
        number += 1
        reads.begin()
        runner.apply(tuner.parse(options))
        assert [one for one in runner.verify(False) if one.result is Result.FAILED] == []
        assert settings(fs) != before
        reads.begin(number)
        runner.restore()
        tries = 0
        while kept(tmp_path).all() and tries < 3:
            assert runner._deferred._ticket, f"read {number}: it is tried again"
            runner._deferred.flush()
            tries += 1
        assert settings(fs) == before, f"read {number}"
        assert kept(tmp_path).all() == {}, f"read {number}"
    assert number > 5


@pytest.mark.parametrize("make", [ksm_with_pages, pools])
def test_each_read_of_an_apply_may_fail_once(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner, fs, options = make(tmp_path)
    reads = EachRead(monkeypatch, type(fs))
    before = settings(fs)
    runner = made(tuner, fs, tmp_path)
    number = applied = 0
    while number <= applied:
        number += 1
        reads.begin(number)
        runner.apply(tuner.parse(options))
        applied = reads.count
        reads.begin()
        failed = [one for one in runner.verify(False) if one.result is Result.FAILED]
        assert failed or settings(fs) != before, f"read {number} fails in silence"
        runner.restore()
        assert settings(fs) == before, f"read {number}"
        assert kept(tmp_path).all() == {}, f"read {number}"
    assert number > 5


def test_what_could_not_even_be_noted_as_pending_is_tried_again(
    runner: Runner, fs: FakeKsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process that has no descriptors left at off; the file's stat needs none."""
    runner.apply(MERGE)

    def no_descriptor(_self: object, path: str, value: str = "") -> None:
        raise KernelFileError(path, "Too many open files", value)

    def no_lock(_self: object, *_: object) -> None:
        raise OriginalsError("cannot keep originals: Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(FakeKsm, "write", no_descriptor)
        for name in ("set_pending", "release", "forget"):
            patch.setattr(Originals, name, no_lock)
        runner.restore()
        assert fs.settings()["run"] == "1"
    runner._deferred.flush()
    assert fs.settings() == FakeKsm().settings()
    assert kept(tmp_path).all() == {}
    assert not runner.engine.incomplete


def test_a_controller_that_fails_to_end_keeps_no_original_from_its_way_back(
    runner: Runner, fs: FakeKsm, tmp_path: Path
) -> None:
    """Its observer of udev had ended by itself, for lack of descriptors."""

    class Broken:
        def stop(self) -> None:
            raise ValueError("I/O operation on closed file")

    runner.apply(MERGE)
    controller: Any = Broken()
    runner._controlling = (MERGE, controller)
    runner.restore()
    assert fs.settings() == FakeKsm().settings()
    assert kept(tmp_path).all() == {}
