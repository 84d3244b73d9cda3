# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks of guests, defined and running, followed through a real libvirtd and real QEMUs."""

from __future__ import annotations

import subprocess
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libvirtd import Libvirtd
from tests.qcow2 import write_overlay
from tests.sandbox import wait_for
from tuned_virt.libvirt_api.backing_chains import BackingChains
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.guest_disks import FollowedGuestDisks, GuestDiskReader

FOLDER = "/var/lib/libvirt/images"
ROOT, DATA = f"{FOLDER}/root.raw", f"{FOLDER}/data.raw"
OVERLAY = f"{FOLDER}/overlay.qcow2"
"""Of ROOT."""

DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/>"
    "<target dev='{target}' bus='virtio'/></disk>"
)
ON_OVERLAY = DISK.replace("'raw'", "'qcow2'").format(path=OVERLAY, target="vda")
VOLUME = (
    "<disk type='volume' device='disk'><driver name='qemu' type='raw'/>"
    "<source pool='images' volume='data.raw'/><target dev='vda' bus='virtio'/></disk>"
)
POOL = f"<pool type='dir'><name>images</name><target><path>{FOLDER}</path></target></pool>"

GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>16</memory>
  <features><acpi/></features>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <video><model type='none'/></video>
    {disk}
  </devices>
</domain>
"""


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """These guests need nothing of KSM: it is left alone."""


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    overlay = tmp_path_factory.mktemp("images") / "overlay"
    write_overlay(overlay, ROOT)
    with Libvirtd() as private:
        inside(private, "mkdir", "-p", FOLDER)
        inside(private, "truncate", "-s", "1M", ROOT, DATA)
        inside(private, "cp", str(overlay), OVERLAY)
        yield private


@pytest.fixture(autouse=True)
def nothing_left(libvirtd: Libvirtd) -> Iterator[None]:
    yield
    libvirtd.forget_guests()
    with libvirtd.connection() as connection:
        for pool in connection.listAllStoragePools():
            if pool.isActive():
                pool.destroy()
            pool.undefine()


def inside(libvirtd: Libvirtd, *command: str) -> None:
    subprocess.run(libvirtd.command(command), check=True)


class Following:
    """A follower and what it has said."""

    def __init__(self, uri: str, chains: Path) -> None:
        self.said: list[str] = []
        self.follower = GuestFollower(FollowedGuestDisks(BackingChains(chains)), uri)

    def paths(self) -> dict[str, tuple[str, ...]]:
        """Paths by guest's name."""
        return {guest.name: guest.paths for guest in (self.follower.guests or {}).values()}


@pytest.fixture
def following(libvirtd: Libvirtd, tmp_path: Path) -> Iterator[Following]:
    made = Following(libvirtd.uri, tmp_path / "state")
    made.follower.start(made.said.append)
    try:
        wait_for("guests listed", lambda: made.follower.guests is not None, 5)
        yield made
    finally:
        made.follower.stop()


def define(libvirtd: Libvirtd, name: str, disk: str) -> str:
    uuid = str(uuids.uuid4())
    with libvirtd.connection() as connection:
        connection.defineXML(GUEST.format(name=name, uuid=uuid, disk=disk))
    return uuid


def test_definitions_tell_and_starts_and_stops_do_not(
    libvirtd: Libvirtd, following: Following
) -> None:
    uuid = define(libvirtd, "web1", DISK.format(path=ROOT, target="vda"))
    wait_for("defined", lambda: "guest web1 is there" in following.said)
    assert following.paths() == {"web1": (ROOT,)}
    said = list(following.said)
    with libvirtd.connection() as connection:
        guest = connection.lookupByUUIDString(uuid)
        guest.create()
        guest.destroy()
        define(libvirtd, "web2", DISK.format(path=DATA, target="vda"))
        wait_for("the next", lambda: "guest web2 is there" in following.said)
        assert following.said == [*said, "guest web2 is there"]
        guest.undefine()
    wait_for("gone", lambda: "guest web1 is gone" in following.said)
    assert following.paths() == {"web2": (DATA,)}


def test_a_disk_plugged_into_a_running_guest_is_seen(
    libvirtd: Libvirtd, following: Following
) -> None:
    uuid = define(libvirtd, "web1", DISK.format(path=ROOT, target="vda"))
    with libvirtd.connection() as connection:
        guest = connection.lookupByUUIDString(uuid)
        guest.create()
        guest.attachDevice(DISK.format(path=DATA, target="vdb"))
        wait_for("plugged", lambda: "guest web1 has other disks" in following.said)
        assert following.paths() == {"web1": (DATA, ROOT)}
        guest.destroy()
    wait_for("its definition counts", lambda: following.paths() == {"web1": (ROOT,)})


def test_a_volume_is_found_once_its_pool_is_active(
    libvirtd: Libvirtd, following: Following
) -> None:
    with libvirtd.connection() as connection:
        pool = connection.storagePoolDefineXML(POOL)
        define(libvirtd, "web1", VOLUME)
        wait_for("defined", lambda: "guest web1 is there" in following.said)
        assert following.paths() == {"web1": ()}
        pool.create()
    wait_for("its path", lambda: following.paths() == {"web1": (DATA,)})


def test_a_base_image_counts_while_its_guest_is_off_once_it_has_run(
    libvirtd: Libvirtd, following: Following, tmp_path: Path
) -> None:
    uuid = define(libvirtd, "web1", ON_OVERLAY)
    wait_for("defined", lambda: following.paths() == {"web1": (OVERLAY,)})
    with libvirtd.connection() as connection:
        guest = connection.lookupByUUIDString(uuid)
        guest.create()
        wait_for("its chain", lambda: following.paths() == {"web1": (OVERLAY, ROOT)})
        said = list(following.said)
        for _ in range(2):
            guest.destroy()
            guest.create()
        guest.destroy()
        define(libvirtd, "web2", DISK.format(path=DATA, target="vda"))
        wait_for("the next", lambda: "guest web2 is there" in following.said)
    assert following.said == [*said, "guest web2 is there"]
    assert following.paths()["web1"] == (OVERLAY, ROOT)
    other = GuestDiskReader(BackingChains(tmp_path / "state")).once(libvirtd.uri)
    assert other is not None
    assert other[uuid].paths == (OVERLAY, ROOT)


def test_a_pool_tells_the_base_image_of_a_guest_that_has_never_run(
    libvirtd: Libvirtd, tmp_path: Path
) -> None:
    """Not of a raw image that has the header of an overlay: its guest may have written that."""
    with libvirtd.connection() as connection:
        connection.storagePoolDefineXML(POOL).create()
    overlay = define(libvirtd, "web1", ON_OVERLAY)
    raw = define(libvirtd, "web2", DISK.format(path=OVERLAY, target="vda"))
    found = GuestDiskReader(BackingChains(tmp_path)).once(libvirtd.uri)
    assert found is not None
    assert found[overlay].paths == (OVERLAY, ROOT)
    assert found[raw].paths == (OVERLAY,)


def test_libvirtd_restarted(libvirtd: Libvirtd, following: Following) -> None:
    define(libvirtd, "web1", DISK.format(path=ROOT, target="vda"))
    wait_for("defined", lambda: "guest web1 is there" in following.said)
    libvirtd.kill9()
    wait_for("absent", lambda: following.follower.guests is None)
    assert following.follower.unavailable
    libvirtd.start()
    wait_for("listed again", lambda: following.paths() == {"web1": (ROOT,)}, 60)


def test_asked_once(libvirtd: Libvirtd) -> None:
    uuid = define(libvirtd, "web1", DISK.format(path=ROOT, target="vda"))
    found = GuestDiskReader().once(libvirtd.uri)
    assert found is not None
    assert found[uuid].paths == (ROOT,)
