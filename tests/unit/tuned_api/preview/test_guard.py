# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing acts while a guard is in force."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tuned_virt.tuned_api.preview.guard import Guard, Stopped


def connect(_file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect("/nonexistent")


ACTS: dict[str, Callable[[Path], object]] = {
    "write": lambda file: file.write_text("x"),
    "append": lambda file: file.open("a"),
    "update": lambda file: file.open("r+"),
    "os.open": lambda file: os.open(file, os.O_WRONLY),
    "create": lambda file: (file.parent / "new").touch(),
    "remove": lambda file: file.unlink(),
    "rename": lambda file: file.rename(file.parent / "new"),
    "chmod": lambda file: file.chmod(0o600),
    "mkdir": lambda file: (file.parent / "new").mkdir(),
    "symlink": lambda file: (file.parent / "new").symlink_to(file),
    "link": lambda file: os.link(file, file.parent / "new"),
    "truncate": lambda file: os.truncate(file, 0),
    "copy": lambda file: shutil.copy(file, file.parent / "new"),
    "temporary": lambda file: tempfile.mkdtemp(dir=file.parent),
    "system": lambda file: os.system(f"echo x > {file}"),
    "program": lambda file: subprocess.run(["true"], check=True),
    "fork": lambda file: os.fork(),
    "kill": lambda file: os.kill(os.getpid(), 0),
    "connect": connect,
}


@pytest.mark.parametrize("act", ACTS)
def test_what_acts_is_stopped_and_listed(tmp_path: Path, act: str) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    file = folder / "there"
    file.write_text("as it was")
    guard = Guard()
    with guard.in_force(), pytest.raises(Stopped):
        ACTS[act](file)
    assert guard.stopped
    assert file.read_text() == "as it was"
    assert list(folder.iterdir()) == [file]


def test_reading_is_not_stopped_and_afterwards_all_is_as_before(tmp_path: Path) -> None:
    file = tmp_path / "there"
    file.write_text("x")
    before = sys.dont_write_bytecode
    guard = Guard()
    with guard.in_force():
        assert file.read_text() == "x"
        with open(os.devnull, "w") as nothing:
            nothing.write("x")
        assert sys.dont_write_bytecode
    file.write_text("y")
    assert sys.dont_write_bytecode is before
    assert guard.stopped == []


def test_a_program_is_started_where_it_is_allowed() -> None:
    guard = Guard()
    with guard.in_force(), guard.program_allowed():
        assert subprocess.run(["echo", "x"], capture_output=True, check=True).stdout == b"x\n"
    with guard.in_force(), pytest.raises(Stopped):
        subprocess.run(["echo", "x"], capture_output=True, check=True)


def test_other_threads_are_guarded_as_well(tmp_path: Path) -> None:
    def write() -> None:
        with pytest.raises(Stopped):
            (tmp_path / "x").write_text("x")
        done.append(True)

    done: list[bool] = []
    with Guard().in_force():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert done == [True]
