# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno
import glob
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuned_virt.kernel.files import KernelFileAbsent, KernelFileError, KernelFS, active_word


@pytest.fixture
def fs(tmp_path: Path) -> KernelFS:
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/run").write_text("1\n")
    return KernelFS(tmp_path)


def test_the_beginning_of_a_file_is_read_and_what_cannot_be_is_an_error(tmp_path: Path) -> None:
    fs = KernelFS(tmp_path)
    (tmp_path / "long").write_bytes(b"abc\xff" * 100)
    assert fs.beginning("/long", 5) == b"abc\xffa"
    with pytest.raises(KernelFileAbsent):
        fs.beginning("/none", 5)
    with pytest.raises(KernelFileError, match="cannot read /: Is a directory"):
        fs.beginning("/", 5)


def test_read_write_glob(fs: KernelFS) -> None:
    assert fs.read("/sys/run") == "1"
    fs.write("/sys/run", "0")
    assert fs.read("/sys/run") == "0"
    assert fs.read_number("/sys/run") == 0
    assert list(fs.glob("/sys/*")) == ["/sys/run"]


def test_glob_of_files_below_a_wildcard(fs: KernelFS) -> None:
    for name in ("b/queue", "a/queue", "c"):
        (Path(fs.root) / "sys/block" / name).mkdir(parents=True)
    for path in ("a/queue/x", "b/queue/x", "b/queue/y", "c/x"):
        (Path(fs.root) / "sys/block" / path).touch()
    assert fs.glob("/sys/block/*/queue/x") == ["/sys/block/a/queue/x", "/sys/block/b/queue/x"]
    assert fs.glob("/sys/b*k/[ac]/*/x") == ["/sys/block/a/queue/x"]
    assert fs.glob("/sys/block/*/no") == fs.glob("/sys/no/*/x") == fs.glob("/sys/no") == []
    assert fs.glob("/sys/run") == ["/sys/run"]


def test_errors_name_path_value_and_reason(fs: KernelFS) -> None:
    with pytest.raises(KernelFileError, match=r"cannot read /sys/no: No such file or directory"):
        fs.read("/sys/no")
    with pytest.raises(KernelFileError, match=r"cannot write '7' to /sys/no: No such file"):
        fs.write("/sys/no", "7")
    assert not fs.exists("/sys/no"), "a kernel file is never created"


def test_missing_and_odd_files_read_as_nothing(fs: KernelFS, tmp_path: Path) -> None:
    assert fs.read_optional("/sys/no") is None
    assert fs.read_number("/sys/no") == 0
    (tmp_path / "sys/odd").write_bytes(b"\xff")
    assert fs.read_optional("/sys/odd") == "\ufffd"
    (tmp_path / "sys/word").write_text("many")
    assert fs.read_number("/sys/word") == 0


@pytest.mark.parametrize(
    ("text", "word"), [("[none] scan-time", "none"), ("none [scan-time]", "scan-time"), ("5", "5")]
)
def test_active_word(text: str, word: str) -> None:
    assert active_word(text) == word


def test_folders_are_counted_with_and_without_links(
    fs: KernelFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("0", "1"):
        (tmp_path / "mq" / name).mkdir(parents=True)
    (tmp_path / "mq/file").write_text("")
    assert fs.folders("/mq") == 2
    assert fs.folders("/absent") == 0
    links = os.stat(tmp_path / "mq")
    fields = (*links[:3], 1, *links[4:])
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path: os.stat_result(fields))
        found = fs.folders("/mq")
    assert found == 2, "as on btrfs, which counts no links"


ERRORS = (errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM, errno.EINVAL)


def failing(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def fails(*_what: object, **_how: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fails)


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("call", ["open", "read"])
def test_what_cannot_be_read_is_neither_absent_nor_zero(
    call: str, code: int, fs: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, call, code)
    for read in (fs.read, fs.read_optional, fs.read_number):
        with pytest.raises(KernelFileError, match=re.escape(os.strerror(code))) as error:
            read("/sys/run")
        assert error.value.code == code
        assert not isinstance(error.value, KernelFileAbsent)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH, errno.ENODEV])
def test_what_has_gone_is_absent(code: int, fs: KernelFS, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "read", code)
    assert fs.read_optional("/sys/run") is None
    assert fs.read_number("/sys/run") == 0


def test_what_this_process_may_not_read_tells_nothing(
    fs: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, "open", errno.EACCES)
        assert fs.read_permitted("/sys/run") is None
    failing(monkeypatch, "open", errno.EMFILE)
    with pytest.raises(KernelFileError, match="Too many open files"):
        fs.read_permitted("/sys/run")


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_folder_that_cannot_be_listed_is_not_empty(
    code: int, fs: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("listdir", "scandir"):
        failing(monkeypatch, call, code)
    for look in (fs.names, fs.entries, lambda path: fs.glob(f"{path}/*/x")):
        with pytest.raises(KernelFileError, match=re.escape(os.strerror(code))):
            look("/sys")


def test_what_cannot_be_looked_at_is_not_gone(
    fs: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "stat", errno.EIO)
    with pytest.raises(KernelFileError, match="Input/output error"):
        fs.exists("/sys/run")


def test_glob_does_as_pythons_own(fs: KernelFS) -> None:
    for path in ("a/x", "a/.hidden", "b/x", "b/y", "c/d/x", "[e]/x", "node0/x", "node10/x"):
        file = Path(fs.root) / "sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (Path(fs.root) / "sys/dangling").symlink_to("/nowhere")
    patterns = ("*", "*/x", "a/*", "?/x", "*/*", "*/*/x", "node[0-9]*/x", "node[0-9]*", "[!a]/x")
    for pattern in patterns:
        found = glob.glob(f"{fs.root}/sys/{pattern}")
        expected = sorted(path[len(str(fs.root)) :] for path in found)
        assert fs.glob(f"/sys/{pattern}") == expected, pattern
    assert fs.glob("/sys/dangling") == ["/sys/dangling"]


def test_a_script_is_a_file_that_begins_as_one(fs: KernelFS, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\nexit\n")
    (tmp_path / "text").write_text("exit\n")
    os.mkfifo(tmp_path / "pipe")
    assert fs.script("/script", 9) == "#!/bin/sh"
    assert [fs.script(name, 100) for name in ("/text", "/pipe", "/none", "/a\0b")] == [""] * 4
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(KernelFileError, match="cannot read /loop"):
        fs.script("/loop", 100)


def test_a_block_devices_number(fs: KernelFS, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fs.device_number("/sys/run") == fs.device_number("/sys/none") == ""
    known = SimpleNamespace(st_mode=0o060600, st_rdev=os.makedev(8, 17))
    monkeypatch.setattr(KernelFS, "_status", lambda *_: known)
    assert fs.device_number("/dev/sdb1") == "8:17"

    def refuses(_fs: KernelFS, path: str) -> None:
        raise KernelFileError(path, "Input/output error")

    monkeypatch.setattr(KernelFS, "_status", refuses)
    assert fs.block_number("/dev/sda") == ""
    with pytest.raises(KernelFileError):
        fs.device_number("/dev/sda")
