# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.failing import AT, CODES, fail
from tuned_virt.core import state_file
from tuned_virt.core.state_file import (
    EVERY_BOOT,
    NOT_THERE,
    Damaged,
    Foreign,
    OfEarlierBoot,
    StateFile,
)


def file(folder: Path, boot: str = "this boot") -> StateFile[Any]:
    return StateFile(folder / "state/x.json", lambda content: content["value"], boot)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    one = file(tmp_path)
    assert one.read() is NOT_THERE
    assert one.load() is None
    one.write({"value": [1]})
    assert one.read() == one.load() == [1]
    one.remove()
    one.remove()
    assert one.read() is NOT_THERE
    assert list((tmp_path / "state").iterdir()) == []


@pytest.mark.parametrize(("boot", "synced"), [("this boot", 0), (EVERY_BOOT, 1)])
def test_what_outlives_a_boot_is_on_disk_before_it_has_its_name(
    boot: str, synced: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    one = file(tmp_path, boot)
    one.write({"value": 1})
    assert sizes == [os.stat(one.path).st_size] * synced
    assert Path(one.path).read_text() == one.text({"value": 1})


@pytest.mark.parametrize("umask", [0, 0o077])
def test_all_read_and_only_root_writes(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        file(tmp_path).write({"value": 1})
    finally:
        os.umask(before)
    assert oct((tmp_path / "state/x.json").stat().st_mode) == oct(0o100644)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"boot_id": "this boot"}', "\x00"])
def test_a_text_that_is_wrong_is_damaged(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = file(tmp_path)
    one.write({"value": 1})
    Path(one.path).write_text(text)
    with pytest.raises(Damaged, match="is damaged"):
        one.read()
    assert one.load() is None
    assert "is damaged" in caplog.text
    assert Path(one.path).read_text() == text


def test_what_is_anothers_is_foreign(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = file(tmp_path)
    file(tmp_path, "earlier boot").write({"value": 1})
    with pytest.raises(OfEarlierBoot):
        one.read()
    assert one.load() is None
    assert caplog.text == "", "a reboot is no news"
    Path(one.path).write_text('{"format": 2, "boot_id": "this boot", "value": 1}')
    with pytest.raises(Foreign, match="another version"):
        one.read()


def test_the_first_version_wrote_no_format(tmp_path: Path) -> None:
    one = file(tmp_path)
    one.write({"value": 1})
    content = json.loads(Path(one.path).read_text())
    del content["format"]
    Path(one.path).write_text(json.dumps(content))
    assert one.read() == 1


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("at", AT)
def test_what_cannot_be_read_is_an_error(
    code: int,
    at: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = file(tmp_path)
    one.write({"value": 1})
    with monkeypatch.context() as patch:
        fail(patch, at, code, "x.json")
        with pytest.raises(OSError, match=os.strerror(code)):
            one.read()
        assert one.load() is None
    assert f"cannot be read: {os.strerror(code)}" in caplog.text
    assert one.read() == 1


def test_what_stops_nobody_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").touch()
    one = file(tmp_path)
    one.save({"value": 1})
    one.save({"value": 1})
    one.discard()
    assert caplog.text.count("is not written") == 1


def test_an_opener_that_fails_leaks_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_descriptor: int, _mode: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fchmod", refuses)
    with pytest.raises(OSError, match="Input/output error"):
        state_file.only_root_writes(str(tmp_path / "x"), os.O_WRONLY | os.O_CREAT)
    assert os.listdir("/proc/self/fd") == before


def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = file(tmp_path)
    one.write({"value": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            one.write({"value": 2})
    assert one.read() == 1
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["x.json"]
