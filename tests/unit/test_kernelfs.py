# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuned_virt.kernel.files import KernelFileError, KernelFS, active_word


@pytest.fixture
def fs(tmp_path: Path) -> KernelFS:
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/run").write_text("1\n")
    return KernelFS(tmp_path)


def test_read_write_glob(fs: KernelFS) -> None:
    assert fs.read("/sys/run") == "1"
    fs.write("/sys/run", "0")
    assert fs.read("/sys/run") == "0"
    assert fs.read_number("/sys/run") == 0
    assert list(fs.glob("/sys/*")) == ["/sys/run"]


def test_glob_of_files_below_a_wildcard(fs: KernelFS) -> None:
    for name in ("b/queue", "a/queue", "c"):
        (fs.root / "sys/block" / name).mkdir(parents=True)
    for path in ("a/queue/x", "b/queue/x", "b/queue/y", "c/x"):
        (fs.root / "sys/block" / path).touch()
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
    assert fs.read_optional("/sys/odd") is None
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
