# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFS


@pytest.fixture
def fs(tmp_path: Path) -> KernelFS:
    for pid, name in ((7, "momd"), (12, "momd"), (3, "bash"), (40, "x\udcff")):
        folder = tmp_path / f"proc/{pid}"
        folder.mkdir(parents=True)
        (folder / "comm").write_bytes(os.fsencode(f"{name}\n"))
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/9").mkdir()
    (tmp_path / "proc/7/status").write_text(
        "Name:\tmomd\nVmLck:\t      12 kB\nHugetlbPages:\t    2048 kB\nCpus_allowed_list:\t0-3,8\n"
    )
    return KernelFS(tmp_path)


def test_processes_are_found_by_name(fs: KernelFS) -> None:
    assert procfs.pids(fs) == {3, 7, 9, 12, 40}
    assert procfs.by_name(fs, ("momd", "virt-handler")) == {"momd": [7, 12]}


def test_a_status_is_read_once_for_all(fs: KernelFS) -> None:
    fields = procfs.status(fs, "7")
    assert fields["Cpus_allowed_list"] == "0-3,8"
    assert procfs.kib(fields, "VmLck") == 12
    assert procfs.kib(fields, "HugetlbPages") == 2048
    assert procfs.kib(fields, "Name") is None
    assert procfs.kib(procfs.status(fs, "99"), "VmLck") is None


def test_a_name_may_hold_anything() -> None:
    assert procfs.stat_fields("7 (a) R 1 (b)) S 5 6") == ["S", "5", "6"]


@contextlib.contextmanager
def zombie(program: str) -> Iterator[int]:
    """A process that ran this, and whose parent does not want to know yet."""
    process = subprocess.Popen([sys.executable, "-c", program])
    stat = Path(f"/proc/{process.pid}/stat")
    wait_for("its end", lambda: procfs.stat_fields(stat.read_text())[0] == "Z")
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


LEADER_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=[60]).start()
ctypes.CDLL(None).syscall(60, 0)
"""
"""Its first thread ends (exit, not exit_group), another runs on."""


def test_a_process_that_was_not_yet_waited_for_has_ended() -> None:
    with zombie("pass") as pid:
        assert procfs.start_time(pid) is None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a system call's number")
def test_a_process_with_a_thread_that_runs_has_not_ended() -> None:
    with zombie(LEADER_ENDS) as pid:
        assert procfs.start_time(pid) is not None


def test_a_process_and_its_parent() -> None:
    assert procfs.parent(os.getpid()) == os.getppid()
    assert procfs.parent(2**22 + 1) == 0


def test_white_space_in_mount_points() -> None:
    assert procfs.unescaped(r"/mnt/a\040b\134c") == "/mnt/a b\\c"


def test_a_name_that_a_user_has_given_a_process_counts_for_nothing(fs: KernelFS) -> None:
    for pid, user in ((7, 1000), (12, 36)):
        (Path(fs.root) / f"proc/{pid}/status").write_text(f"Name:\tmomd\nUid:\t{user}\t0\t0\t0\n")
    assert procfs.by_name(fs, ("momd",)) == {"momd": [12]}


def test_the_plugins_of_an_apply_share_one_reading(
    fs: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "MACHINE", machine := procfs.ProcessNames(fs))
    monkeypatch.setattr(procfs, "_is_services", lambda fs, pid: True)
    assert procfs.by_name(KernelFS(), ("momd",)) == {"momd": [7, 12]}
    (Path(fs.root) / "proc/12/comm").write_text("virt-handler")
    assert procfs.by_name(KernelFS(), ("momd", "virt-handler")) == {"momd": [7, 12]}
    monkeypatch.setattr(machine, "HOLDS", -1.0)
    assert procfs.by_name(KernelFS(), ("momd", "virt-handler")) == {
        "momd": [7],
        "virt-handler": [12],
    }
