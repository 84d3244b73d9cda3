# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with <hugepages> on node 1: the pool grows for it, it starts, and its pages are there."""

from __future__ import annotations

import os
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm.daemon import Tuned, own_profile
from tests.vm.libvirtd import Libvirtd, pid_of
from tests.vm.test_hugepages_numa import SECTION, counts, off
from tuned_virt.plugins.hugepages_numa.pools import used

M2 = 2048
MIB, PAGES = 64, 32
MOUNT = Path("/dev/hugepages")

GUEST = """
<domain type='qemu'>
  <name>huge</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{mib}</memory>
  <vcpu>1</vcpu>
  <memoryBacking><hugepages/></memoryBacking>
  <numatune><memory mode='strict' nodeset='1'/></numatune>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
"""


@pytest.fixture
def mounted(tuned: Tuned) -> Iterator[None]:
    """The profile whose pools follow guests, and its mount, which libvirtd finds when it starts."""
    tuned.switch(own_profile("huge", SECTION, pages_2M="guests", mount_2M=str(MOUNT)))
    wait_for("the mount", MOUNT.is_mount, 60)
    yield
    off(tuned)
    assert counts(1) == (0, 0)


@pytest.fixture
def libvirtd(mounted: None) -> Iterator[Libvirtd]:
    made = Libvirtd(Path(os.environ["TUNED_VIRT_QEMU"]))
    yield made
    for domain in made.connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    made.stop()


def test_a_guests_pages_are_on_its_node(tuned: Tuned, libvirtd: Libvirtd) -> None:
    assert counts(1) == (0, 0)
    guest = libvirtd.connection.defineXML(GUEST.format(uuid=uuids.uuid4(), mib=MIB))
    wait_for("pages for the defined guest", lambda: counts(1) == (PAGES, 0), 60)
    assert [counts(node)[0] for node in (0, 2, 3)] == [0, 0, 0]
    guest.create()
    maps = Path(f"/proc/{pid_of('huge')}/numa_maps").read_text()
    assert used(maps) == {(1, M2): PAGES}
    verified, lines = tuned.verify()
    assert verified, lines
    guest.destroy()
    assert counts(1) == (PAGES, 0), "a pool never shrinks by itself"
