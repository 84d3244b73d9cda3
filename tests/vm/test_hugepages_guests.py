# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests with <hugepages>: a pool grows for one, and vCPUs are where the pages are."""

from __future__ import annotations

import os
import re
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm.daemon import Tuned, own_profile
from tests.vm.libvirtd import Libvirtd, affinities, pid_of
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


# --- vCPUs ----------------------------------------------------------------------------------------

SMALL, GUESTS, OF_A_NODE = 32, 4, 40
"""MiB of a guest, how many, and pages of 2 MiB on each node: room for all guests everywhere."""

POOLS = ",".join(f"{node}:{OF_A_NODE}" for node in range(4))


@pytest.fixture
def plain_libvirtd(tuned: Tuned) -> Iterator[Libvirtd]:
    pools = own_profile("pools", SECTION, pages_2M=POOLS, mount_2M=str(MOUNT))
    nodes = own_profile("nodes", "vm_pinning", policy="node", overcommit="4")
    tuned.switch(f"{pools} {nodes}")
    wait_for("the mount", MOUNT.is_mount, 60)
    made = Libvirtd(Path(os.environ["TUNED_VIRT_QEMU"]), interleaved=False)
    yield made
    made.stop()
    off(tuned)


def pages_of(name: str) -> dict[int, int]:
    """Its huge pages by node."""
    maps = Path(f"/proc/{pid_of(name)}/numa_maps").read_text().splitlines()
    found: dict[int, int] = {}
    for node, pages in re.findall(
        r"N(\d+)=(\d+)", "".join(line for line in maps if " huge " in line)
    ):
        found[int(node)] = found.get(int(node), 0) + int(pages)
    return found


def test_vcpus_are_where_huge_pages_are(tuned: Tuned, plain_libvirtd: Libvirtd) -> None:
    """They cannot follow: a fresh guest was pinned to the emptiest node, away from its memory."""
    everywhere = "<allocation mode='immediate'/></memoryBacking>"
    for number in range(GUESTS):
        name = f"h{number}"
        text = GUEST.format(uuid=uuids.uuid4(), mib=SMALL).replace("<name>huge", f"<name>{name}")
        text = re.sub(r"<numatune>.*</numatune>", "", text).replace("</memoryBacking>", everywhere)
        plain_libvirtd.connection.createXML(text, 1)

    def placed(name: str) -> bool:
        """On the node with most of its pages: QEMU may be moved while it allocates them."""
        pages = pages_of(name)
        nodes = [node for node, count in pages.items() if count == max(pages.values())]
        [cpus] = {cpus for thread, cpus in affinities(name).items() if thread.startswith("CPU ")}
        return cpus in {f"{2 * node}-{2 * node + 1}" for node in nodes}

    for number in range(GUESTS):
        wait_for("vCPUs at the pages", lambda number=number: placed(f"h{number}"), 60)  # type: ignore[misc]
    pages = {f"h{number}": pages_of(f"h{number}") for number in range(GUESTS)}
    assert all(len(nodes) == 1 for nodes in pages.values()), pages
    verified, lines = tuned.verify()
    assert verified, lines
