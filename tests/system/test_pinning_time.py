# SPDX-License-Identifier: GPL-2.0-or-later
"""Placed guests over time: started with libvirtd, reset, reverted, saved and restored, grown."""

from __future__ import annotations

import os
import struct
import tempfile
import time
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.libvirtd import GUEST, Libvirtd
from tests.pinners import Pinner, affinities, pinning
from tests.sandbox import wait_for
from tuned_virt.core.engine import Result

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="pins need two CPUs to differ")

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE

AUTOSTARTED = "run/libvirt/qemu/autostarted"
"""libvirtd starts guests once a boot; this file says that it has."""

DISK = """<disk type='file'><driver name='qemu' type='qcow2'/><source file='{}'/>
<target dev='vda' bus='virtio'/></disk>"""


CLUSTER = 1 << 16


def empty_qcow2() -> bytes:
    """An image of 64 MiB, which can hold snapshots (QEMU's docs/interop/qcow2.txt, version 2).

    Its clusters: the header, the table of reference counts, the counts of these four, and the table
    of the data's, of which there are none.
    """
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", 2, 0, 0, 16, 64 << 20, 0, 1),
        *(3 * CLUSTER, CLUSTER, 1, 0, 0),
    )
    parts = [header, struct.pack(">Q", 2 * CLUSTER), struct.pack(">4H", 1, 1, 1, 1), b""]
    return b"".join(part.ljust(CLUSTER, b"\0") for part in parts)


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


@pytest.fixture
def private() -> Iterator[Libvirtd]:
    with Libvirtd() as one:
        yield one


@pytest.fixture
def image() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "disk.qcow2"
        file.write_bytes(empty_qcow2())
        yield str(file)


def define(connection: Any, name: str, vcpu: str = "", devices: str = "") -> Any:
    xml = GUEST.format(name=name, uuid=uuids.uuid4(), mib=16, extra_xml="")
    xml = xml.replace("<vcpu>1</vcpu>", vcpu or "<vcpu>1</vcpu>")
    return connection.defineXML(xml.replace("</devices>", f"{devices}</devices>"))


def vcpus(private: Libvirtd, name: str) -> list[str]:
    found = affinities(private.guest_pid(name))
    return [cpus for thread, cpus in found.items() if thread.startswith("CPU ")]


def assert_fresh(pinner: Pinner, private: Libvirtd, domain: Any) -> None:
    """A guest is placed, though guests that ran before the profile came are left."""
    pinner.wait_pinned(domain.UUIDString())
    wait_for("pinned", lambda: set(vcpus(private, domain.name())) == {"1"})
    found = {one.result for one in pinner.verify()}
    assert found == {Result.PASSED}, pinner.verify()


def test_a_guest_that_a_later_libvirtd_autostarts_is_fresh(private: Libvirtd) -> None:
    """As at boot: TuneD has applied the profile when libvirtd starts its guests."""
    with private.connection() as connection:
        domain = define(connection, "boots")
        domain.setAutostart(1)
    private.kill9()
    Path(f"/proc/{private._holder}/root/{AUTOSTARTED}").unlink(missing_ok=True)
    with pinning(private.uri, running="leave") as pinner:
        wait_for("absence said", lambda: bool(pinner.manager.unavailable()))
        private.start()
        with private.connection() as connection:
            domain = connection.lookupByName("boots")
            wait_for("autostarted", lambda: domain.isActive() == 1)
            assert_fresh(pinner, private, domain)


def test_a_reset_a_managed_save_and_a_reverted_snapshot(private: Libvirtd, image: str) -> None:
    with private.connection() as connection, pinning(private.uri, running="leave") as pinner:
        domain = define(connection, "web1", devices=DISK.format(image))
        domain.create()
        assert_fresh(pinner, private, domain)
        before = private.guest_pid("web1")

        domain.reset()
        assert private.guest_pid("web1") == before
        assert_fresh(pinner, private, domain)

        domain.snapshotCreateXML("<domainsnapshot><name>one</name></domainsnapshot>")
        assert_fresh(pinner, private, domain)
        domain.revertToSnapshot(domain.snapshotLookupByName("one"))
        wait_for("runs", lambda: domain.isActive() == 1)
        assert_fresh(pinner, private, domain)

        domain.managedSave()
        wait_for("let go", lambda: not pinner.held() and not pinner.baseline.all())
        domain.create()
        assert_fresh(pinner, private, domain)

        domain.destroy()
        domain.revertToSnapshot(domain.snapshotLookupByName("one"))
        assert_fresh(pinner, private, domain)
        assert pinner.off()
        assert vcpus(private, "web1") == ["0-1"]
        assert not pinner.baseline.all()


def test_vcpus_are_planned_for_within_a_second_of_being_plugged_in(private: Libvirtd) -> None:
    """libvirt tells of them by no event, and pins them where they do no harm meanwhile."""
    with private.connection() as connection, pinning(private.uri) as pinner:
        domain = define(connection, "grows", "<vcpu current='1'>4</vcpu>")
        domain.create()
        assert_fresh(pinner, private, domain)

        def planned() -> int:
            return len(pinner.held()[domain.UUIDString()].placement.vcpus)

        for wanted in (2, 4):
            domain.setVcpusFlags(wanted, LIVE)
            plugged = time.monotonic()
            wait_for("planned for", lambda: planned() == wanted, 90)  # noqa: B023
            took = time.monotonic() - plugged
            print(f"{wanted} vCPUs are planned for {took:.2f} s after they were plugged in")
            assert took < 1
            assert vcpus(private, "grows") == ["1"] * wanted
