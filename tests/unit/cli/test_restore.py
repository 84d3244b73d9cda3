# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt restore` while a TuneD starts: whoever holds a plugin's tuning alone writes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.unit.failing import AT, fail
from tests.unit.fake_ksm import FRESH, FakeKsm
from tuned_virt import cli
from tuned_virt.cli import restore
from tuned_virt.cli.activation import Machine
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError, UnheldOriginals
from tuned_virt.kernel import systemd
from tuned_virt.kernel.procfs import start_time
from tuned_virt.plugins.ksm import KsmTuner
from tuned_virt.plugins.vm_pinning.plugin import PinningTuner

TUNED = {**FRESH, "run": "1", "sleep_millisecs": "50"}
ORIGINALS = {"run": "0", "sleep_millisecs": "20"}


@pytest.fixture
def other() -> Iterator[int]:
    """A process that can hold a tuning."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


def take_over(folder: Path, pid: int) -> None:
    """As a TuneD does that is started now."""

    class Others(Originals):
        def _this_process(self) -> tuple[int, int]:
            return pid, start_time(pid) or 0

    Others(folder, "boot").take("ksm")


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Originals:
    Originals(tmp_path, "boot").keep("ksm", ORIGINALS)
    Originals(tmp_path, "boot").release("ksm")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(restore, "UnheldOriginals", lambda: UnheldOriginals(tmp_path, "boot"))
    monkeypatch.setattr(restore, "Journal", lambda: Journal(tmp_path / "journal"))
    monkeypatch.setattr(restore, "tuners", lambda: {"ksm": KsmTuner(state=tmp_path)})
    return Originals(tmp_path, "boot")


def test_a_tuned_that_starts_between_two_writes_is_not_written_over(
    baseline: Originals, other: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = FakeKsm(TUNED)
    writing = UnheldOriginals.writing

    def comes_first(self: UnheldOriginals, plugin: str) -> AbstractContextManager[None]:
        if len(fs.writes) == 1:
            take_over(tmp_path, other)
        return writing(self, plugin)

    monkeypatch.setattr(UnheldOriginals, "writing", comes_first)
    monkeypatch.setattr(restore, "KernelFS", lambda: fs)
    assert cli.main(["restore"]) == 1
    assert len(fs.writes) == 1
    assert baseline.record("ksm").originals == ORIGINALS
    assert baseline.holder("ksm") == other


def test_what_a_tuned_holds_by_now_is_left_to_it(
    baseline: Originals,
    other: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fs = FakeKsm(TUNED)
    monkeypatch.setattr(restore, "KernelFS", lambda: fs)
    monkeypatch.setattr(UnheldOriginals, "holder", lambda *_: None)  # as it was a moment ago
    take_over(tmp_path, other)
    assert cli.main(["restore"]) == 1
    assert f"ksm: process {other} has taken over" in capsys.readouterr().out
    assert fs.writes == []


def test_for_programs_it_says_what_is_restored_and_what_is_not(
    baseline: Originals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fs = FakeKsm({**TUNED, "merge_across_nodes": "0"}, shared=5)
    monkeypatch.setattr(restore, "KernelFS", lambda: fs)
    baseline.keep("ksm", {**ORIGINALS, "merge_across_nodes": "1"})
    baseline.release("ksm")
    assert cli.main(["restore", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["changed"] is True
    assert {one["setting"] for one in content["restored"]} == {"run", "sleep_millisecs"}
    [pending] = content["pending"]
    assert (pending["plugin"], pending["setting"]) == ("ksm", "merge_across_nodes")
    assert "pages" in pending["why"]
    assert any("sleep_millisecs is '20' as before" in line for line in content["notes"])
    assert cli.main(["restore", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["changed"] is False


def test_nobody_takes_over_while_a_setting_is_written(
    baseline: Originals, other: int, tmp_path: Path
) -> None:
    ours = UnheldOriginals(tmp_path, "boot")
    assert ours.take_free("ksm") is None
    comes = threading.Thread(target=take_over, args=(tmp_path, other))
    with ours.writing("ksm"):
        comes.start()
        comes.join(0.1)
        assert comes.is_alive()
    comes.join()
    with pytest.raises(OriginalsError, match=f"process {other} has taken over"):
        ours.forget("ksm", ORIGINALS)
    with (
        pytest.raises(OriginalsError, match=f"process {other} has taken over"),
        ours.writing("ksm"),
    ):
        pass


def test_what_others_have_restored_meanwhile_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OriginalsError, match="has restored ksm"):
        UnheldOriginals(tmp_path, "boot").writing("ksm").__enter__()


def system(folder: Path, **files: str) -> Machine:
    """A TuneD of which these files below /etc/tuned are there; `balanced` alone has [ksm]."""
    etc = folder / "etc/tuned"
    (etc / "balanced").mkdir(parents=True)
    (etc / "tuned-main.conf").write_text("")
    (etc / "balanced/tuned.conf").write_text("[ksm]\nrun=1\n")
    for name, text in files.items():
        (etc / name).write_text(text)
    return Machine(folder)


@pytest.mark.parametrize(
    ("at", "name"),
    [(at, name) for at in AT for name in ("active_profile", "post_loaded_profile")]
    + [("open", "tuned.conf")],
)
def test_beside_a_starting_tuned_an_unreadable_profile_restores_nothing(
    at: str,
    name: str,
    baseline: Originals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its plugins restore their own settings; which those are is in these files."""
    fs, machine = FakeKsm(TUNED), system(tmp_path, active_profile="balanced\n")
    monkeypatch.setattr(restore, "KernelFS", lambda: fs)
    monkeypatch.setattr(restore, "Machine", lambda: machine)
    monkeypatch.setattr(systemd, "restarting", lambda: False)
    (tmp_path / "etc/tuned/post_loaded_profile").write_text("")
    with monkeypatch.context() as patch:
        fail(patch, at, errno.EIO, name)
        assert cli.main(["restore", "--leftover", "starting"]) == 2
    assert "nothing is restored, because the active profile cannot be read" in (
        capsys.readouterr().err
    )
    assert fs.writes == []
    assert baseline.record("ksm").originals == ORIGINALS
    assert cli.main(["restore", "--leftover", "starting"]) == 0
    assert fs.writes == [], "it is of the active profile"
    (tmp_path / "etc/tuned/active_profile").write_text("powersave\n")
    assert cli.main(["restore", "--leftover", "starting"]) == 0
    assert baseline.all() == {}


def test_a_setting_that_there_is_not_is_not_said_to_be_as_before(
    baseline: Originals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a damaged record, another kernel's, or a guest's plugin."""
    monkeypatch.setattr(restore, "KernelFS", lambda: FakeKsm(TUNED))
    pinning = PinningTuner(baseline._file.path)
    tuners = {"ksm": KsmTuner(state=Path(baseline._file.path).parent), "vm_pinning": pinning}
    monkeypatch.setattr(restore, "tuners", lambda: tuners)
    for plugin in tuners:
        baseline.keep(plugin, {"bogus": "1"})
        baseline.release(plugin)
    assert cli.main(["restore"]) == 0
    said = capsys.readouterr().out.splitlines()
    for plugin in tuners:
        assert f"{plugin}: bogus: nothing to restore: this machine has no such setting" in said
    assert "ksm: run is '0' as before" in said
    assert baseline.all() == {}


def test_nothing_to_restore_is_not_said_beside_a_record_that_is_not_understood(
    baseline: Originals, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(baseline._file.path)
    file.write_text('{"format": 2, "boot_id": "boot", "plugins": {}}')
    assert cli.main(["restore"]) == 1
    said = capsys.readouterr().out
    assert "another version of tuned-virt (format 2, not 1)" in said
    assert "nothing to restore" not in said
    file.unlink()
    assert cli.main(["restore"]) == 0
    assert capsys.readouterr().out == "nothing to restore\n"
