# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.unit.failing import AT, CODES, fail
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import Change
from tuned_virt.core.state_file import StateFile
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.procfs import start_time


@pytest.fixture
def baseline(tmp_path: Path) -> Originals:
    return Originals(tmp_path, "this boot")


def test_the_first_writer_wins(baseline: Originals, tmp_path: Path) -> None:
    baseline.keep("ksm", {"run": "0"})
    baseline.keep("ksm", {"run": "1", "pages_to_scan": "100"})
    again = Originals(tmp_path, "this boot")
    assert again.record("ksm").originals == {"run": "0", "pages_to_scan": "100"}


def test_what_this_process_has_written_is_not_read_again(
    baseline: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline.keep("ksm", {"run": "0"})
    with monkeypatch.context() as unread:
        unread.setattr(StateFile, "read", None)
        baseline.keep("disks", {"vda": "none"})
        baseline.forget("ksm", ["run"])
        baseline.keep("ksm", {"run": "1"})
        assert baseline.record("disks").originals == {"vda": "none"}
    Originals(tmp_path, "this boot").keep("crash_guard", {"x": "1"})  # another process
    baseline.keep("disks", {"vdb": "bfq"})
    assert {name: one.originals for name, one in baseline.all().items()} == {
        "ksm": {"run": "1"},
        "disks": {"vda": "none", "vdb": "bfq"},
        "crash_guard": {"x": "1"},
    }


def test_a_change_that_is_not_written_is_not_believed(
    baseline: Originals, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline.keep("ksm", {"run": "0"})
    with monkeypatch.context() as full:
        full.setattr(os, "replace", Mock(side_effect=OSError(errno.ENOSPC, "no space left")))
        with pytest.raises(OriginalsError):
            baseline.keep("ksm", {"x": "1"})
        with pytest.raises(OriginalsError):
            baseline.amend("ksm", {"run": "9"})
    assert baseline.record("ksm").originals == {"run": "0"}
    baseline.keep("ksm", {"y": "2"})
    assert baseline.record("ksm").originals == {"run": "0", "y": "2"}


def test_what_is_forgotten_is_gone(baseline: Originals, tmp_path: Path) -> None:
    baseline.keep("ksm", {"run": "0", "x": "1"})
    baseline.keep("disks", {"vda": "none"})
    baseline.set_pending("ksm", {"run": "busy"})
    baseline.forget("ksm", ["run", "never kept"])
    assert baseline.record("ksm").originals == {"x": "1"}
    assert baseline.record("ksm").pending == {}
    baseline.forget("ksm", ["x"])
    baseline.forget("disks", ["vda"])
    assert not (tmp_path / "baseline.json").exists()


@pytest.mark.parametrize("umask", [0, 0o077])
def test_all_read_and_only_root_writes_whatever_the_umask(
    umask: int, baseline: Originals, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        baseline.keep("ksm", {"run": "0"})
        Journal(tmp_path / "journal").add(
            "ksm", Change("run", "/x", "0", "1", "set by the profile")
        )
    finally:
        os.umask(before)
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert modes == {"baseline.json": "0o644", "journal": "0o644", "baseline.lock": "0o600"}


def test_the_boot_is_the_running_kernels(tmp_path: Path) -> None:
    Originals(tmp_path).keep("ksm", {"run": "0"})
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert json.loads((tmp_path / "baseline.json").read_text())["boot_id"] == boot


def test_a_process_started_when_it_did() -> None:
    ticks = start_time(os.getpid())
    assert ticks is not None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= uptime - ticks / os.sysconf("SC_CLK_TCK") < 4 * 3600
    assert start_time(2**22 + 1) is None


def test_another_boots_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Originals(tmp_path, "earlier").keep("ksm", {"run": "0"})
    later = Originals(tmp_path, "later")
    assert later.all() == {}
    assert later.remarks() == [], "its values are gone with it"
    assert [file.name for file in tmp_path.glob("*.json*")] == ["baseline.json"]
    later.keep("ksm", {"run": "1"})
    assert later.remarks() == []
    assert "is of an earlier boot" in caplog.text
    assert len(list(tmp_path.glob("baseline.json.*"))) == 1


WHOLE = json.dumps(
    {"format": 1, "boot_id": "this boot", "plugins": {"ksm": {"originals": {"run": "0"}}}}
)


@pytest.mark.parametrize(
    "damaged",
    [
        *("", "{", "[]", "null", WHOLE[:-10], WHOLE, '{"format": 2}', "\x00" * 100),
        WHOLE.replace('"0"}}', '0}, "pending": {}, "owner": null}'),
    ],
)
def test_a_damaged_file_is_said_set_aside_and_never_fatal(
    damaged: str, baseline: Originals, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "baseline.json").write_text(damaged)
    baseline.keep("ksm", {"run": "1"})
    assert baseline.record("ksm").originals == {"run": "1"}
    assert "moved aside as baseline.json." in caplog.text
    [aside] = tmp_path.glob("baseline.json.*")
    assert aside.read_text() == damaged


def test_undecodable_bytes_are_set_aside(baseline: Originals, tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_bytes(b"\xff\xfe")
    assert baseline.all() == {}


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OriginalsError, match=r"cannot keep originals in .*baseline.json"):
        Originals(tmp_path / "file", "boot").keep("ksm", {"run": "0"})


def test_the_holder_is_a_live_process(baseline: Originals, tmp_path: Path) -> None:
    baseline.keep("ksm", {"run": "0"})
    assert baseline.holder("ksm") == os.getpid()
    text = (tmp_path / "baseline.json").read_text()
    (tmp_path / "baseline.json").write_text(text.replace(str(start_time(os.getpid())), "1"))
    assert baseline.holder("ksm") is None, "a namesake of the pid is another process"
    baseline.release("ksm")
    assert baseline.record("ksm").owner is None


def _keep_many(folder: Path, who: int) -> None:
    for number in range(50):
        Originals(folder, "boot").keep("ksm", {f"{who}-{number}": "x", "contested": str(who)})


def test_two_daemons_at_once_lose_nothing(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_keep_many, args=(tmp_path, who)) for who in (1, 2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    originals = Originals(tmp_path, "boot").record("ksm").originals
    assert len(originals) == 101
    assert originals["contested"] in ("1", "2")


def test_a_writer_killed_between_write_and_rename_harms_nothing(
    baseline: Originals, tmp_path: Path
) -> None:
    baseline.keep("ksm", {"run": "0"})
    (tmp_path / "baseline.new").write_text('{"format": 1, "boo')
    assert baseline.record("ksm").originals == {"run": "0"}
    baseline.keep("ksm", {"x": "1"})
    assert baseline.record("ksm").originals == {"run": "0", "x": "1"}


def test_saving_hundreds_is_not_slow_in_kind(baseline: Originals) -> None:
    started = time.monotonic()
    baseline.keep("ksm", {str(number): "x" for number in range(500)})
    assert len(baseline.record("ksm").originals) == 500
    assert time.monotonic() - started < 5, "one write for all, not one for each"


def test_what_was_set_aside_is_said_until_somebody_removes_it(
    baseline: Originals, tmp_path: Path
) -> None:
    (tmp_path / "baseline.json").write_text("{")
    assert baseline.all() == {}
    [remark] = baseline.remarks()
    [aside] = tmp_path.glob("baseline.json.*")
    assert remark.startswith(f"{aside} was moved aside")
    aside.unlink()
    assert baseline.remarks() == []


def test_another_versions_file_stays_until_something_is_to_be_kept(
    baseline: Originals, tmp_path: Path
) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(foreign := '{"format": 2, "boot_id": "this boot", "settings": {}}')
    assert baseline.all() == {}
    assert file.read_text() == foreign, "a mere reader moves nothing away"
    assert baseline.remarks() == [
        f"{file} was written by another version of tuned-virt (format 2, not 1)"
    ]
    baseline.keep("ksm", {"run": "0"})
    [aside] = tmp_path.glob("baseline.json.*")
    assert aside.read_text() == foreign


@pytest.mark.parametrize("owner", ["[1]", '["a", 1]', "7", '{"pid": 1}'])
def test_a_damaged_entry_does_not_take_the_others_with_it(
    owner: str, baseline: Originals, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    baseline.keep("disks", {"vda": "none"})
    baseline.keep("ksm", {"run": "0"})
    file = tmp_path / "baseline.json"
    content = json.loads(file.read_text())
    content["plugins"]["ksm"]["owner"] = json.loads(owner)
    file.write_text(json.dumps(content))
    assert list(baseline.all()) == ["disks"]
    assert "is damaged (ksm: " in caplog.text
    assert baseline.record("disks").originals == {"vda": "none"}
    [aside] = tmp_path.glob("baseline.json.*")
    assert json.loads(aside.read_text()) == content


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("at", AT)
def test_what_cannot_be_read_is_neither_damaged_nor_absent(
    code: int, at: str, baseline: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline.keep("ksm", {"run": "0"})
    fresh = Originals(tmp_path, "this boot")
    with monkeypatch.context() as patch:
        fail(patch, at, code)
        for call in (
            fresh.all,
            fresh.remarks,
            lambda: fresh.record("ksm"),
            lambda: fresh.holder("ksm"),
            lambda: fresh.keep("ksm", {"x": "1"}),
            lambda: fresh.forget("ksm", ["run"]),
        ):
            with pytest.raises(OriginalsError, match=os.strerror(code)):
                call()
    assert fresh.record("ksm").originals == {"run": "0"}
    assert fresh.remarks() == []


def test_an_owner_that_cannot_be_looked_at_is_not_gone(
    baseline: Originals, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline.keep("ksm", {"run": "0"})

    def refuses(self: KernelFS, path: str) -> str:
        raise KernelFileError(path, os.strerror(errno.EMFILE), code=errno.EMFILE)

    monkeypatch.setattr(KernelFS, "read", refuses)
    with pytest.raises(OriginalsError, match="Too many open files"):
        baseline.holder("ksm")
