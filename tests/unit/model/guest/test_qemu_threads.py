# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads of QEMU by role, read from a made-up /proc."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model.guest import qemu_threads
from tuned_virt.model.pins import EMULATOR, Part, Target

TASKS = {
    100: ("qemu-system-x86", "0-1"),
    101: ("IO mon_iothread", "0-1"),
    102: ("CPU 0/KVM", "4"),
    103: ("CPU 10/TCG", "5"),
    104: ("IO iothread2", "1"),
}


@pytest.fixture
def fs(tmp_path: Path) -> KernelFS:
    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    for task, (comm, cpus) in TASKS.items():
        write(f"proc/100/task/{task}/comm", comm + "\n")
        write(f"proc/100/task/{task}/status", f"Name:\tx\nCpus_allowed_list:\t{cpus}\n")
        write(f"proc/100/task/{task}/schedstat", "5 777 9\n")
    write("proc/100/comm", "qemu-system-x86\n")
    write("proc/100/cmdline", "qemu\0-uuid\0u1\0-name\0guest=web1\0")
    return KernelFS(tmp_path)


def test_threads_by_role(fs: KernelFS) -> None:
    found = qemu_threads.read(fs, 100)
    assert found == {
        Target(Part.VCPU, 0): (102,),
        Target(Part.VCPU, 10): (103,),
        Target(Part.IOTHREAD, 2): (104,),
        EMULATOR: (100, 101),
    }
    where = qemu_threads.affinity(fs, 100, found)
    assert where[EMULATOR] == {100: "0-1", 101: "0-1"}
    assert qemu_threads.pins(where).vcpus == {0: "4", 10: "5"}
    assert qemu_threads.pins(where).emulator == "0-1"
    assert qemu_threads.run_delay(fs, 100, 102) == 777
    assert qemu_threads.read(fs, 999) == {}


def test_processes_by_uuid(fs: KernelFS) -> None:
    finder = qemu_threads.ThreadFinder(fs)
    assert finder.find({"u1": "web1", "u2": "db1"}) == {"u1": 100}
    twin = Path(fs.root) / "proc/300"
    twin.mkdir()
    (twin / "comm").write_text("qemu-system-x86\n")
    (twin / "cmdline").write_text("qemu\0-uuid\0u1\0")
    assert finder.find({"u1": "web1"}) == {}, "two claim it"
    noted = Path(fs.root) / "run/libvirt/qemu/web1.pid"
    noted.parent.mkdir(parents=True)
    noted.write_text("100")
    assert finder.find({"u1": "web1"}) == {"u1": 100}, "only root writes what libvirt notes"
    for wrong in ("999", "", "1e2", "-100", "\u0661", "9" * 30):
        noted.write_text(wrong)
        assert finder.find({"u1": "web1"}) == {}, "it is none of those that say so"
    noted.write_text("100")
    assert finder.find({"u1": "../qemu/web1"}) == {}, "no path"


def test_a_process_is_the_guests_because_libvirt_says_so_not_by_its_name(
    fs: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrapper as <emulator> has any name, and any user's program may be called kvm."""
    real, liar = Path(fs.root) / "proc/100", Path(fs.root) / "proc/300"
    (real / "comm").write_text("vendor-emulator\n")
    liar.mkdir()
    (liar / "comm").write_text("kvm\n")
    (liar / "cmdline").write_text("kvm\0-uuid\0u1\0")
    noted = Path(fs.root) / "run/libvirt/qemu/web1.pid"
    noted.parent.mkdir(parents=True)
    noted.write_text("100")
    with monkeypatch.context() as patch:
        patch.setattr(procfs, "pids", lambda _: pytest.fail("nothing else is looked at"))
        assert qemu_threads.ThreadFinder(fs).find({"u1": "web1"}) == {"u1": 100}
    (real / "cmdline").write_text("postgres\0")
    assert qemu_threads.ThreadFinder(fs).find({"u1": "web1"}) == {"u1": 300}, "a number passed on"


@pytest.mark.parametrize("name", ["comm", "status"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_thread_that_cannot_be_read_is_neither_gone_nor_the_emulators(
    name: str, code: int, fs: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vCPU would be put back, or confined, as one of the emulator's."""
    real = os.open

    def opened(path: str, *how: Any) -> int:
        if path.endswith(f"/102/{name}"):
            raise OSError(code, os.strerror(code))
        return real(path, *how)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(KernelFileError, match=os.strerror(code)):
        qemu_threads.affinity(fs, 100)
