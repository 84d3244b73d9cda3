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
from tuned_virt.libvirt_api.guest_disks import DiskSource, GuestDiskReader, GuestDisks, sources
from tuned_virt.plugins.blk_elevator_virt import DisksTuner, parse, state
from tuned_virt.plugins.blk_elevator_virt.backing import (
    BackingDevices,
    FilesystemMount,
    mount_of,
    mounts,
)
from tuned_virt.plugins.blk_elevator_virt.guest_users import DiskUsers

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


def users(fs: FakeDisks, *defined: GuestDisks) -> dict[str, tuple[str, ...]]:
    disks = state.DiskReader(fs).read()
    return DiskUsers(fs).of(disks, FixedGuests({guest.uuid: guest for guest in defined}))[0]


def test_mounts() -> None:
    found = mounts(MOUNTS)
    assert found["32"] == FilesystemMount(
        "253:0", "/var/lib/libvirt/images", "xfs", "/dev/mapper/vg-images"
    )
    assert found["33"].point == "/with space"
    points = [
        (path, mount.point if (mount := mount_of(path, found.values())) else None)
        for path in ("/etc/x", "/data", "/database/x", "/var/lib/libvirt/images/a", "relative")
    ]
    assert [point for _, point in points] == ["/", "/data", "/", "/var/lib/libvirt/images", None]


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
    assert found.of_paths(paths) == before == {"u1": {"sda2"}, "u2": {"sdb", "sdc"}}
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


XML = """
<domain><devices>
  <disk type='file' device='disk'><source file='/a.qcow2'/>
    <backingStore type='file'><source file='/base.qcow2'/><backingStore/></backingStore></disk>
  <disk type='block' device='lun'><source dev='/dev/vg/lv'/></disk>
  <disk type='volume' device='disk'><source pool='images' volume='b'/></disk>
  <disk type='network' device='disk'><source protocol='rbd' name='pool/image'/></disk>
  <disk type='file' device='cdrom'/>
  <disk type='dir' device='disk'><source dir='/vvfat'/></disk>
  <disk type='file' device='disk'><source file='relative'/></disk>
</devices></domain>
"""


def test_sources_of_a_guests_xml() -> None:
    assert sources(XML) == [
        DiskSource("/a.qcow2"),
        DiskSource("/base.qcow2"),
        DiskSource("/dev/vg/lv"),
        DiskSource(pool="images", volume="b"),
        DiskSource("/vvfat"),
    ]


@pytest.mark.parametrize(
    "xml", ["", "<domain", "<!DOCTYPE d [<!ENTITY e 'x'>]><domain>&e;</domain>"]
)
def test_xml_that_is_none_or_brings_entities(xml: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        sources(xml)


def difference(before: Mapping[str, GuestDisks], after: Mapping[str, GuestDisks]) -> str:
    return summary(GuestDiskReader().differences(before, after))


def test_differences_in_words() -> None:
    one = {"u": GuestDisks("u", "web", ("/a",))}
    assert difference(one, dict(one)) == ""
    assert difference(one, {"u": GuestDisks("u", "web", ("/b",))}) == "guest web has other disks"
    assert difference({}, one) == "guest web is there"
    assert difference(one, {}) == "guest web is gone"
    many = {str(n): SimpleNamespace(name=str(n), paths=()) for n in range(9)}
    assert difference({}, many).endswith("and 6 more changes")  # type: ignore[arg-type]
