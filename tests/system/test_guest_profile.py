# SPDX-License-Identifier: GPL-2.0-or-later
"""virtual-guest-plus in a real guest: TuneD applies it there, verifies it and puts all back."""

from __future__ import annotations

import subprocess
import tempfile
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tuned_guest
from tests.libvirtd import Libvirtd
from tests.sandbox import REPO, Sandbox, wait_for

SECONDS = 240
DISK_BYTES = 64 << 20
DISK = """
<disk type='file' device='disk'>
  <driver name='qemu' type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/>
</disk>
"""


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """This guest needs nothing of KSM: it is left alone."""


@pytest.fixture
def host(version: str) -> Iterator[tuple[Libvirtd, Path]]:
    """A libvirtd where TuneD and this checkout are installed, and a folder for a guest's files."""
    with Sandbox(version, start=False) as t, Libvirtd(t) as private:
        remount = ["mount", "-o", "remount,bind,rw", str(REPO)]
        subprocess.run(private.command(remount), check=True)
        with tempfile.TemporaryDirectory(dir=REPO / "build") as folder:
            yield private, Path(folder)


def test_a_guest_is_tuned_and_is_as_before(host: tuple[Libvirtd, Path]) -> None:
    private, folder = host
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    tuned_guest.initramfs(folder, "virtual-guest-plus")
    xml = tuned_guest.domain("inside", str(uuids.uuid4()), folder, disk=DISK.format(path=disk))
    with private.connection() as connection:
        connection.createXML(xml)
    wait_for("TuneD in the guest", lambda: tuned_guest.result(folder) is not None, SECONDS)
    found = tuned_guest.result(folder)
    assert found
    assert found["verified"], found["lines"]
    assert found["changed"]["/proc/sys/vm/swappiness"] == "30"
    assert found["changed"]["/sys/block/vda/queue/read_ahead_kb"] == "4096"
    assert "'blk_elevator_virt vda/scheduler' = 'mq-deadline'" in found["lines"]
    assert found["left"] == {}
