# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests and disks: guests on layers, whose disks are set while they are there; and I/O weights."""

from __future__ import annotations

import contextlib
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
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.blk_elevator_virt import state
from tuned_virt.plugins.blk_elevator_virt.backing import BackingDevices
from tuned_virt.plugins.blk_elevator_virt.storage import Storage, on_devices

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
        persistent = domain.isPersistent()
        if domain.isActive():
            domain.destroy()
        if persistent:
            domain.undefine()
    made.stop()


def guest(name: str, path: str = VOLUME) -> str:
    return GUEST.format(name=name, uuid=uuids.uuid4(), path=path)


def below(name: str) -> Storage:
    """What a guest on a device is on."""
    fs = KernelFS()
    return BackingDevices(fs).queues(on_devices([name]), state.DiskReader(fs).read())


BCACHE = Path("/sys/fs/bcache")
BUCKET = "64k"
"""The kernel's code wants more than 512 of them on the cache (bcache/super.c, cache_alloc)."""

KEY = "0123456789abcdef" * 8
DRBDSETUP = "/usr/lib/drbd/drbdsetup-84"
"""For the module of Debian's kernel, which is DRBD 8.4."""


@pytest.fixture(scope="module")
def bcache(names: dict[str, str]) -> Iterator[str]:
    """dm-crypt on a bcache of sata-one, which sata-two caches; the kernel's name of dm-crypt."""
    disks.run("modprobe", "--all", "bcache", "dm_crypt", "xts")
    backing, cache = (f"/dev/{names[name]}" for name in ("sata-one", "sata-two"))
    for device in (backing, cache):
        disks.run("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=2")
    disks.run("make-bcache", "--block", "4k", "--bucket", BUCKET, "-B", backing, "-C", cache)
    with contextlib.ExitStack() as stack:
        for device in (backing, cache):
            (BCACHE / "register").write_text(device)
        wait_for("bcache0", (disks.BLOCK / "bcache0").exists, disks.SLOW)
        stack.callback(stop_bcache)
        table = f"0 65536 crypt aes-xts-plain64 {KEY} 0 /dev/bcache0 0"
        uuid = ["--uuid", "CRYPT-PLAIN-secret"]
        disks.run("dmsetup", "create", "secret", *uuid, "--noudevsync", "--table", table)
        stack.callback(disks.run, "dmsetup", "remove", "--noudevsync", "secret", check=False)
        disks.run("dmsetup", "mknodes", "secret")
        yield disks.mapped("secret")


def stop_bcache() -> None:
    """The device and its cache, so that others may have the disks."""
    (disks.BLOCK / "bcache0/bcache/stop").write_text("1")
    for stop in BCACHE.glob("*-*/stop"):
        stop.write_text("1")
    wait_for("bcache0 is gone", lambda: not (disks.BLOCK / "bcache0").exists(), disks.SLOW)


@pytest.fixture
def drbd(names: dict[str, str]) -> Iterator[str]:
    """A DRBD device that has no disk yet."""
    Path("/run/lock").mkdir(exist_ok=True)
    disks.run("modprobe", "drbd", "minor_count=1")
    disks.run(DRBDSETUP, "new-resource", "r0")
    disks.run(DRBDSETUP, "new-minor", "r0", "0", "0")
    yield "drbd0"
    disks.run(DRBDSETUP, "down", "r0", check=False)


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


def test_a_guest_on_dm_crypt_on_bcache_has_both_disks_set(
    bcache: str, names: dict[str, str], libvirtd: Libvirtd, profile: Tuned
) -> None:
    both = [names["sata-one"], names["sata-two"]]
    seen = disks.disks()
    assert (seen["bcache0"]["class"], seen["bcache0"]["made_of"]) == ("bcache", sorted(both))
    assert seen[bcache]["fact"] == "dm/uuid: CRYPT"
    assert below(bcache) == on_devices(both)
    before = {name: disks.scheduler(name) for name in both}
    assert WANTED not in before.values()
    defined = libvirtd.connection.defineXML(guest("secret", "/dev/mapper/secret"))
    wait_for("set", lambda: {disks.scheduler(name) for name in both} == {WANTED}, disks.SLOW)
    assert disks.disks()[both[0]]["backs"] == ["secret"]
    verified, lines = profile.verify()
    assert verified, lines
    defined.undefine()
    wait_for("back", lambda: {one: disks.scheduler(one) for one in both} == before, disks.SLOW)


def test_drbd_with_a_disk_here_and_without(drbd: str, names: dict[str, str]) -> None:
    assert disks.disks()[drbd]["class"] == "DRBD"
    assert below(drbd) == Storage(network=frozenset({"DRBD's peers"}))
    disk = f"/dev/{names['pv-one']}"
    disks.run("dd", "if=/dev/zero", f"of={disk}", "bs=1M", "count=2")
    disks.run("drbdmeta", "--force", "0", "v08", disk, "internal", "create-md")
    disks.run(DRBDSETUP, "attach", "0", disk, disk, "internal")
    try:
        assert disks.disks()[drbd]["made_of"] == [names["pv-one"]]
        assert below(drbd) == on_devices([names["pv-one"]])
    finally:
        disks.run(DRBDSETUP, "detach", "0", check=False)


def test_nbd_is_named(emulated: None) -> None:
    disks.run("modprobe", "nbd", "nbds_max=1")
    assert disks.disks()["nbd0"]["class"] == "nbd"
    disks.run("modprobe", "--remove", "nbd")


COSTS = Path("/sys/fs/cgroup/io.cost.qos")
WEIGHTS = ("io.bfq.weight", "io.weight")


@pytest.fixture
def plain_guest(libvirtd: Libvirtd) -> str:
    """A running guest's name."""
    libvirtd.start_guest("weighed", mib=32)
    return "weighed"


def test_weights_of_a_guest_and_of_a_device_are_set_and_put_back(
    names: dict[str, str], libvirtd: Libvirtd, plain_guest: str, profile: Tuned
) -> None:
    """cgroup v2: bfq has a file for a guest's weight alone, a device's is the cost model's."""
    disk, logged = names["pv-two"], len(profile.log())
    number = disks.read(disks.BLOCK / disk / "dev")
    before = disks.scheduler(disk)
    (disks.BLOCK / disk / "queue/scheduler").write_text("bfq")
    domain = libvirtd.connection.lookupByName(plain_guest)
    first = domain.blkioParameters(1)
    assert (first["weight"], first["device_weight"]) == (100, "")
    options = {"blkio_weight": "300", "device_weights": f"/dev/{disk},400"}
    asked = own_profile("weighing", "vm_blkio", **options)
    profile.switch(asked)
    verified, lines = profile.verify()
    assert not verified
    assert "io.weight': Operation not supported" in lines
    COSTS.write_text(f"{number} enable=1")
    try:
        profile.switch(asked)
        verified, lines = profile.verify()
        assert verified, lines
        assert weights(plain_guest) == {
            "io.bfq.weight": ["default 300"],
            "io.weight": ["default 100", f"{number} 400"],
        }
        profile.off()
        assert weights(plain_guest) == {
            "io.bfq.weight": ["default 100"],
            "io.weight": ["default 100", f"{number} 100"],
        }
        assert "not restored" not in profile.log()[logged:]
    finally:
        COSTS.write_text(f"{number} enable=0")
        (disks.BLOCK / disk / "queue/scheduler").write_text(before)


def weights(name: str) -> dict[str, list[str]]:
    """What the kernel weighs a guest's I/O with, by file of its cgroup."""
    (cgroup,) = Path("/sys/fs/cgroup/machine").glob(f"qemu-*-{name}.libvirt-qemu")
    return {file: disks.read(cgroup / file).splitlines() for file in WEIGHTS}


def writes(tuned: Tuned) -> list[str]:
    """The lines of all that has been written to disks."""
    return [
        line for line in tuned.log().splitlines() if "blk_elevator_virt" in line and "->" in line
    ]
