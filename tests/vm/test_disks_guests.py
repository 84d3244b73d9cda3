# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest on an LVM volume: its disk is set while it is defined or runs, and then goes back."""

from __future__ import annotations

import os
import time
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm import disks
from tests.vm.daemon import Tuned, own_profile
from tests.vm.libvirtd import Libvirtd

WANTED = "kyber"
VOLUME = "/dev/guests/root"
QUIET = 5
"""Seconds in which a needless write would have come: events settle within half of one."""

GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw'/><source dev='{path}'/><target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
"""


@pytest.fixture(scope="module")
def names(emulated: None) -> Iterator[dict[str, str]]:
    """Kernel names by serial, with a volume on pv-two."""
    disks.run("modprobe", "dm_mod")
    found = disks.by_serial()
    disks.run("vgcreate", "-y", "guests", f"/dev/{found['pv-two']}")
    disks.run("lvcreate", "-y", "-Wn", "-Zn", "-L", "64M", "-n", "root", "guests")
    disks.run("vgscan", "--mknodes")
    yield found
    disks.run("vgremove", "-ff", "-y", "guests", check=False)


@pytest.fixture
def profile(daemon: Tuned) -> Iterator[Tuned]:
    """Disks that back guests are to have another scheduler, and no others."""
    if not daemon.running:
        daemon.forget_profile()
        daemon.start()
    options = {"role": "host", "host_backing": WANTED}
    daemon.switch(own_profile("backing", "blk_elevator_virt", **options))
    yield daemon
    daemon.off()


@pytest.fixture
def libvirtd(profile: Tuned) -> Iterator[Libvirtd]:
    made = Libvirtd(Path(os.environ["TUNED_VIRT_QEMU"]))
    yield made
    for domain in made.connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        if domain.isPersistent():
            domain.undefine()
    made.stop()


def guest(name: str) -> str:
    return GUEST.format(name=name, uuid=uuids.uuid4(), path=VOLUME)


def test_a_volumes_disk_is_set_while_guests_use_it(
    names: dict[str, str], libvirtd: Libvirtd, profile: Tuned
) -> None:
    disk = names["pv-two"]
    before = {name: disks.scheduler(name) for name in os.listdir(disks.BLOCK)}
    assert WANTED not in before.values()
    defined = libvirtd.connection.defineXML(guest("web"))
    wait_for("set", lambda: disks.scheduler(disk) == WANTED, disks.SLOW)
    now = {name: disks.scheduler(name) for name in before}
    assert now == {**before, disk: WANTED}
    verified, lines = profile.verify()
    assert verified, lines
    assert disks.disks()[disk]["backs"] == ["web"]
    written = writes(profile)
    defined.create()
    time.sleep(QUIET)
    defined.destroy()
    time.sleep(QUIET)
    assert writes(profile) == written
    defined.undefine()
    wait_for("back", lambda: disks.scheduler(disk) == before[disk], disks.SLOW)
    transient = libvirtd.connection.createXML(guest("transient"))
    wait_for("set again", lambda: disks.scheduler(disk) == WANTED, disks.SLOW)
    transient.destroy()
    wait_for("back again", lambda: disks.scheduler(disk) == before[disk], disks.SLOW)


def writes(tuned: Tuned) -> list[str]:
    """The lines of all that has been written to disks."""
    return [
        line for line in tuned.log().splitlines() if "blk_elevator_virt" in line and "->" in line
    ]
