# SPDX-License-Identifier: GPL-2.0-or-later
"""From guests to the queues that order their requests, over a fake /proc and sysfs."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.blockdev import LOOP, FakeDisks, hba
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.core.plan import Plan
from tuned_virt.kernel import timeouts
from tuned_virt.libvirt_api.follower import summary
from tuned_virt.libvirt_api.guest_disks import GuestDiskReader, GuestDisks
from tuned_virt.plugins.blk_elevator_virt import DisksTuner, parse, state
from tuned_virt.plugins.blk_elevator_virt.backing import SILENT, BackingDevices
from tuned_virt.plugins.blk_elevator_virt.guest_users import DiskUsers, GuestStorage

MOUNTS = """\
21 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
30 21 0:40 / /data rw - btrfs /dev/sdb rw,subvol=/
31 21 0:41 / /nfs rw - nfs4 filer:/export rw
32 21 253:0 / /var/lib/libvirt/images rw - xfs /dev/mapper/vg-images rw
33 21 0:42 / /with\\040space rw - tmpfs tmpfs rw
"""


@pytest.fixture
def fs(tmp_path: Path) -> FakeDisks:
    """sda2 is /, sdb and sdc a btrfs, dm-0 (on sdd) holds images, dm-1 is a volume on sde."""
    made = FakeDisks(tmp_path / "root")
    for host, name in enumerate(("sda", "sdb", "sdc", "sdd", "sde", "sdf")):
        hba(made, name, host)
        made.number(name, f"8:{16 * host}")
    made.partition("sda", "sda2", "8:2")
    for name, below, number in (("dm-0", "sdd", "253:0"), ("dm-1", "sde", "253:1")):
        made.add(name, f"{LOOP}{name}", offered="", dm__uuid="LVM-x")
        made.slaves(name, below)
        made.number(name, number)
    for name in ("sdb", "sdc"):
        made.file(f"/sys/fs/btrfs/1-2/devices/{name}", "")
    made.file("/proc/self/mountinfo", MOUNTS)
    return made


def qemu(fs: FakeDisks, pid: int, name: str, *files: tuple[str, int]) -> None:
    """A QEMU with open files, each on a mount."""
    fs.file(f"/proc/{pid}/cmdline", "\0".join(["qemu", "-name", f"guest={name}"]))
    fs.file(f"/proc/{pid}/statm", "100 100 0 0")
    fs.file(f"/proc/{pid}/mountinfo", MOUNTS)
    (Path(fs.root) / f"proc/{pid}/exe").symlink_to("/usr/bin/qemu-system-x86_64")
    (Path(fs.root) / f"proc/{pid}/fd").mkdir()
    for number, (path, mount) in enumerate(files):
        (Path(fs.root) / f"proc/{pid}/fd/{number}").symlink_to(path)
        fs.file(f"/proc/{pid}/fdinfo/{number}", f"pos:\t0\nflags:\t02\nmnt_id:\t{mount}")


def users(fs: FakeDisks, *defined: GuestDisks) -> Mapping[str, tuple[str, ...]]:
    disks = state.DiskReader(fs).read()
    return DiskUsers(fs).of(disks, FixedGuests({guest.uuid: guest for guest in defined})).disks


def test_open_files_of_running_guests(fs: FakeDisks) -> None:
    qemu(
        fs,
        41,
        "web",
        ("/srv/a.qcow2", 21),
        ("/var/log/libvirt/qemu/web.log", 32),
        ("/nfs/b.raw", 31),
        ("socket:[1]", 0),
        ("/dev/kvm", 0),
        ("/with space/x", 33),
    )
    qemu(fs, 42, "db", ("/dev/dm-1", 0), ("/data/c.raw", 30), ("/var/lib/libvirt/images/d", 32))
    assert users(fs) == {
        "sda": ("web",),
        "sdb": ("db",),
        "sdc": ("db",),
        "sdd": ("db",),
        "sde": ("db",),
    }


def test_paths_of_defined_guests(fs: FakeDisks) -> None:
    (Path(fs.root) / "srv").mkdir()
    (Path(fs.root) / "srv/link").symlink_to(Path(fs.root) / "var/lib/libvirt/images/a")
    (Path(fs.root) / "dev/vg").mkdir(parents=True)
    (Path(fs.root) / "dev/dm-1").write_text("")
    (Path(fs.root) / "dev/vg/lv").symlink_to("../dm-1")
    paths = ("/dev/vg/lv", "/srv/link", "/nfs/x", "/missing/file", "/dev/sdx")
    assert users(fs, GuestDisks("u1", "we\nb", paths), GuestDisks("u2", "none", ())) == {
        "sda": ("we?b",),
        "sdd": ("we?b",),
        "sde": ("we?b",),
    }


def test_a_guests_path_is_never_opened(fs: FakeDisks, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is its owner's text: a pipe would hang, and opening may mean something to a device."""
    pipe = Path(fs.root) / "srv/pipe"
    pipe.parent.mkdir(exist_ok=True)
    os.mkfifo(pipe)
    opened: list[object] = []
    real = os.open

    def noted(path: object, *how: Any, **named: Any) -> int:
        opened.append(path)
        return real(path, *how, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", noted)
    assert users(fs, GuestDisks("u1", "web", ("/srv/pipe", "/srv/link"))) == {"sda": ("web",)}
    assert not [path for path in opened if "/srv/" in str(path)]


def test_the_disk_under_a_loop_device_counts_too(fs: FakeDisks) -> None:
    fs.add("loop0", f"{LOOP}loop0", loop__backing_file="/srv/image")
    fs.number("loop0", "7:0")
    qemu(fs, 41, "web", ("/dev/loop0", 0))
    assert users(fs) == {"loop0": ("web",), "sda": ("web",)}


@pytest.mark.large
def test_a_dead_file_system_keeps_the_last_answer(
    fs: FakeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "DISKS_READ", 0.1)
    found = BackingDevices(fs)
    paths = {"u1": ("/srv/a",), "u2": ("/data/b",)}
    before = found.of_paths(paths)
    alive = threading.Event()
    resolved = FakeDisks.resolved

    def hangs(self: FakeDisks, path: str) -> str:
        if path == "/srv/a":
            alive.wait()
        return resolved(self, path)

    monkeypatch.setattr(FakeDisks, "resolved", hangs)
    assert found.of_paths(paths) == before
    assert {guest: one.devices for guest, one in before.items()} == {
        "u1": {"sda2"},
        "u2": {"sdb", "sdc"},
    }
    assert found.of_paths({"u3": ("/srv/a",)}) == {"u3": SILENT}
    alive.set()


def plan(fs: FakeDisks, libvirt: FixedGuests[Any], originals: dict[str, str]) -> Plan:
    tuner = DisksTuner(libvirt)
    asked = parse({"role": "host", "host_backing": "mq-deadline"})
    return tuner.decide(asked, tuner.read(fs, asked, originals), originals)


def test_disks_of_defined_guests_are_set_and_go_back(fs: FakeDisks) -> None:
    guest = GuestDisks("u1", "web", ("/data/x",))
    there = plan(fs, FixedGuests({"u1": guest}), {})
    assert sorted(change.path for change in there.changes) == [
        "/sys/block/sdb/queue/scheduler",
        "/sys/block/sdc/queue/scheduler",
    ]
    assert there.changes[0].why == "SCSI HBA, backs web: host_backing=mq-deadline"
    for change in there.changes:
        fs.write(change.path, str(change.after))
    gone = plan(fs, FixedGuests({}), dict(there.originals))
    assert {change.after for change in gone.changes} == {"none", "64"}


def test_while_libvirt_is_not_known_nothing_goes_back(fs: FakeDisks) -> None:
    fs.file("/usr/sbin/libvirtd", "")
    guest = GuestDisks("u1", "web", ("/data/x",))
    there = plan(fs, FixedGuests({"u1": guest}), {})
    for change in there.changes:
        fs.write(change.path, str(change.after))
    unknown = plan(fs, FixedGuests(None, "libvirt is gone"), dict(there.originals))
    assert unknown.changes == ()
    assert unknown.originals == there.originals
    assert unknown.notes == ("guests: defined guests are unknown: libvirt is gone",)


def difference(before: Mapping[str, GuestDisks], after: Mapping[str, GuestDisks]) -> str:
    return summary(GuestDiskReader().differences(before, after))


def test_differences_in_words() -> None:
    one = {"u": GuestDisks("u", "web", ("/a",))}
    assert difference(one, dict(one)) == ""
    assert difference(one, {"u": GuestDisks("u", "web", ("/b",))}) == "guest web has other disks"
    assert difference({}, one) == "guest web is there"
    assert difference(one, {}) == "guest web is gone"
    many = {str(n): SimpleNamespace(name=str(n)) for n in range(9)}
    assert difference({}, many).endswith("and 6 more changes")  # type: ignore[arg-type]


def used(fs: FakeDisks, *defined: GuestDisks) -> GuestStorage:
    disks = state.DiskReader(fs).read()
    return DiskUsers(fs).of(disks, FixedGuests({guest.uuid: guest for guest in defined}))


def layer(fs: FakeDisks, name: str, *below: str, **files: str) -> None:
    """A virtual device without a scheduler, made of others."""
    fs.add(name, f"{LOOP}{name}", offered="", **files)  # type: ignore[arg-type]
    fs.slaves(name, *below)


def test_layers_down_to_the_disks(fs: FakeDisks) -> None:
    """Trees in the shape of public reports: bcache of two partitions and a cache (g2p/bcache-tools
    issue 34), LINSTOR's DRBD on LVM on a RAID (LINBIT/linstor-server issue 265), dm-crypt, and VDO
    on a disk (dm-vdo/vdo issue 22)."""
    layer(fs, "bcache0", "sda2", "sde")
    layer(fs, "md0", "sdb", "sdc")
    layer(fs, "dm-5", "md0", dm__uuid="LVM-abc")
    layer(fs, "drbd1000", "dm-5")
    layer(fs, "dm-6", "bcache0", dm__uuid="CRYPT-LUKS2-x")
    layer(fs, "dm-7", "sdd", dm__uuid="VDO-f31-x")
    guests = [
        GuestDisks(name, name, (f"/dev/{device}",))
        for name, device in (("a", "dm-6"), ("b", "drbd1000"), ("c", "dm-7"))
    ]
    found = used(fs, *guests)
    assert found.disks == {
        **dict.fromkeys(("sda", "sde"), ("a",)),
        **dict.fromkeys(("sdb", "sdc"), ("b",)),
        "sdd": ("c",),
    }
    assert (found.network, found.unfollowed, found.unsettled) == ({}, {}, "")


def test_a_diskless_drbd_is_on_its_peers(fs: FakeDisks) -> None:
    """As in LINBIT/linstor-client issue 53."""
    layer(fs, "drbd1752")
    found = used(fs, GuestDisks("u", "one-vm", ("/dev/drbd1752",)))
    assert found.disks == {}
    assert found.network == {"DRBD's peers": ("one-vm",)}


def test_network_devices_are_named(fs: FakeDisks) -> None:
    fs.add("nbd0", f"{LOOP}nbd0")
    fs.add("rbd0", "/sys/devices/rbd/0/block/rbd0")
    disks = state.DiskReader(fs).read()
    assert [disks[name].attached.kind.value for name in ("nbd0", "rbd0")] == ["nbd", "rbd"]
    found = used(fs, GuestDisks("u", "web", ("/dev/nbd0", "/dev/rbd0")))
    assert found.disks == {"nbd0": ("web",), "rbd0": ("web",)}


def test_a_zvol_of_a_proxmox_guest(fs: FakeDisks) -> None:
    """Plain QEMU, the zvol open, its pool on two disks (made up in the shape of Proxmox's)."""
    layer(fs, "zd0", dev="230:0")
    fs.file("/run/udev/data/b230:0", "S:zvol/rpool/data/vm-100-disk-0")
    for number in ("8:2", "8:48"):
        fs.file(f"/run/udev/data/b{number}", "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=rpool")
    qemu(fs, 41, "vm100", ("/dev/zd0", 0))
    assert used(fs).disks == {"sda": ("vm100",), "sdd": ("vm100",)}


def test_a_file_below_a_layer_is_followed_too(fs: FakeDisks) -> None:
    """dm-crypt on a loop device, whose file is on another disk, or on an NFS server."""
    fs.add("loop0", f"{LOOP}loop0", loop__backing_file="/srv/image")
    fs.add("loop1", f"{LOOP}loop1", loop__backing_file="/nfs/image")
    layer(fs, "dm-6", "loop0", "loop1", dm__uuid="CRYPT-PLAIN-x")
    found = used(fs, GuestDisks("u", "web", ("/dev/dm-6",)))
    assert found.disks == dict.fromkeys(("loop0", "loop1", "sda"), ("web",))
    assert found.network == {"NFS filer:/export": ("web",)}


def test_what_is_no_disk_here_is_said(fs: FakeDisks) -> None:
    web = GuestDisks("u1", "web", ("/nfs/a", "/dev/vg/gone"), ("rbd",), ("odd",), ("volume v",))
    found = used(fs, web, GuestDisks("u2", "db", ("/nfs/b",)))
    assert found.disks == {}
    assert found.network == {"NFS filer:/export": ("db", "web"), "rbd": ("web",)}
    assert found.unfollowed == {
        "/dev/vg/gone does not exist": ("web",),
        "odd": ("web",),
        "volume v: libvirt does not tell its path": ("web",),
    }
    tuner = DisksTuner(FixedGuests({"u1": web}))
    asked = parse({"role": "host", "host_backing": "mq-deadline"})
    assert tuner.decide(asked, tuner.read(fs, asked, {}), {}).notes == (
        "on the network, not on disks of this host: NFS filer:/export (web), rbd (web)",
        "not followed to disks: /dev/vg/gone does not exist (web), odd (web),"
        " volume v: libvirt does not tell its path (web)",
    )


def test_disks_stay_set_while_a_guests_file_system_does_not_answer(
    fs: FakeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TuneD that has started meanwhile has no last answer."""
    guest = FixedGuests({"u1": GuestDisks("u1", "web", ("/data/x",))})
    there = plan(fs, guest, {})
    for change in there.changes:
        fs.write(change.path, str(change.after))
    monkeypatch.setattr(timeouts, "DISKS_READ", 0.1)
    alive = threading.Event()
    monkeypatch.setattr(FakeDisks, "resolved", lambda fs, path: alive.wait(20) and path)
    unknown = plan(fs, guest, dict(there.originals))
    alive.set()
    assert unknown.changes == ()
    assert unknown.originals == there.originals
    assert unknown.notes == ("guests: web: the file system of its disks does not answer",)
