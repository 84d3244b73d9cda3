# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that come and go are noticed by QEMU's threads; other threads of QEMU are not."""

from __future__ import annotations

import queue
import shutil
import time
from pathlib import Path

import pytest

from tests.unit.libvirt_api.fake_binding import URI, install
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import vcpu_watch
from tuned_virt.libvirt_api.connection import Connection
from tuned_virt.libvirt_api.vcpu_watch import VcpuWatch

PID = 100


class Process:
    """A QEMU's threads below a root."""

    def __init__(self, root: Path) -> None:
        self.folder = root / f"proc/{PID}/task"
        self.add(PID, "qemu-system-x86")

    def add(self, thread: int, name: str) -> None:
        (self.folder / str(thread)).mkdir(parents=True)
        (self.folder / str(thread) / "comm").write_text(f"{name}\n")

    def remove(self, thread: int) -> None:
        shutil.rmtree(self.folder / str(thread))


def test_only_vcpus_that_come_or_go_are_news_and_are_told_twice(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.add(101, "CPU 0/KVM")
    watch = VcpuWatch(KernelFS(tmp_path))
    watch.follow({"uuid": PID})
    assert watch.changed() == set()
    process.add(102, "worker")
    assert watch.changed() == set(), "a worker thread"
    process.add(103, "CPU 1/KVM")
    assert watch.changed() == {"uuid"}, "plugged in"
    assert watch.changed() == {"uuid"}, "once more, as libvirt's XML may come later"
    process.remove(103)
    watch.follow({"uuid": PID})
    assert watch.changed() == {"uuid"}, "unplugged, though asked to follow it once more"
    watch.follow({})
    assert not watch
    assert watch.changed() == set(), "a guest that is followed no more"


def test_a_process_that_has_ended_is_no_error(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.add(101, "CPU 0/KVM")
    watch = VcpuWatch(KernelFS(tmp_path))
    watch.follow({"uuid": PID})
    shutil.rmtree(process.folder)
    assert [bool(watch.changed()) for _ in range(3)] == [True, True, False]


def test_a_connection_that_waits_notices_a_vcpu_without_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    monkeypatch.setattr(vcpu_watch, "PERIOD", 0.001)
    link = Connection(URI, queue.SimpleQueue())
    process = Process(tmp_path)
    link.vcpus = VcpuWatch(KernelFS(tmp_path))
    link.vcpus.follow({"uuid": PID})
    before = time.monotonic()
    assert not link.wait(0.01).uuids
    assert time.monotonic() - before >= 0.01, "nothing has changed: it waits on"
    process.add(101, "CPU 0/TCG")
    assert link.wait(60).uuids == {"uuid"}
    link.close()
