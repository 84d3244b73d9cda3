# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs of the guests that run, as libvirt's files of state have them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.unit.numad.test_machine import write
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest.qemu_threads import PID_FILES
from tuned_virt.numad import running_guests
from tuned_virt.numad.advice import Guests, Running

BEGINNING = """<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->

<domstatus state='running' reason='booted' pid='{pid}'>
  <monitor path='/var/lib/libvirt/qemu/domain-1-web/monitor.sock' type='unix'/>
  <vcpus>
"""
REST = """  </vcpus>
  <qemuCaps>
    <flag name='kvm'/>
  </qemuCaps>
  <domain type='kvm' id='1'>
    <metadata><vcpu id='9' pid='1'/></metadata>
  </domain>
</domstatus>
"""


def run(root: Path, name: str, threads: Sequence[int]) -> None:
    """A guest that runs, as its file of state says."""
    vcpus = "".join(f"    <vcpu id='{n}' pid='{pid}'/>\n" for n, pid in enumerate(threads))
    write(root, f"{running_guests.STATE}/{name}.xml", BEGINNING.format(pid=1) + vcpus + REST)


def test_vcpus_by_where_they_may_run(tmp_path: Path) -> None:
    """The threads are this process's; one has ended. What is no file of state is not read."""
    fs = KernelFS(tmp_path)
    assert running_guests.read(fs) == (Guests([]), "")
    run(tmp_path, "web", [os.getpid()] * 2)
    run(tmp_path, "db", [os.getpid(), 1 << 29])
    run(tmp_path, "starting", [])
    write(tmp_path, f"{running_guests.STATE}/web.pid", "1")
    write(tmp_path, f"{running_guests.STATE}/autostarted", "")
    mask = sum(1 << cpu for cpu in os.sched_getaffinity(0))
    (found, starting), missing = running_guests.read(fs)
    own = os.getpid()
    assert sorted(found) == [Running(own, (mask,)), Running(own, (mask, mask))]
    assert (starting, missing) == (1, "")


def test_more_vcpus_than_the_beginning_of_a_file_has(tmp_path: Path) -> None:
    run(tmp_path, "huge", [os.getpid()] * 4096)
    ([found], _), _ = running_guests.read(KernelFS(tmp_path))
    assert len(found.masks) == 4096


def test_what_cannot_be_read_is_said_and_the_others_count(tmp_path: Path) -> None:
    run(tmp_path, "web", [os.getpid()])
    (tmp_path / f"{running_guests.STATE}/odd.xml".lstrip("/")).mkdir()
    (found, _), missing = running_guests.read(KernelFS(tmp_path))
    assert [len(one.masks) for one in found] == [1]
    assert missing == f"cannot read {running_guests.STATE}/odd.xml: Is a directory"


def test_it_is_libvirts_folder() -> None:
    assert running_guests.STATE in PID_FILES
