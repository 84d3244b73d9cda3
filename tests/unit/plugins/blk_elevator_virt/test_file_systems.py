# SPDX-License-Identifier: GPL-2.0-or-later
"""From mounts to disks. The lines of mountinfo and the trees are made up in the shape of public
reports; no machine with ZFS or bcachefs was at hand for this tier:

- ZFS: util-linux/util-linux issue 1158 (udev's properties), trapexit/mergerfs issue 1586 (members
  that are partitions), canonical/lxd-pkg-snap issue 61 (mountinfo), openzfs/zfs issue 17320
  (`zpool list -v`)
- bcachefs: util-linux/util-linux pull 4340 (sysfs, and the source with colons in mountinfo),
  koverstreet/bcachefs issue 655 (two devices)
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.unit.blockdev import LOOP, FakeDisks, hba
from tuned_virt.kernel import commands, timeouts
from tuned_virt.plugins.blk_elevator_virt import zfs
from tuned_virt.plugins.blk_elevator_virt.file_systems import (
    FilesystemMount,
    FileSystems,
    mount_of,
    mounts,
)
from tuned_virt.plugins.blk_elevator_virt.storage import (
    NOWHERE,
    Storage,
    not_answered,
    not_followed,
    on_devices,
    on_network,
)

MOUNTS = """\
21 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
32 21 253:0 / /var/lib/libvirt/images rw - xfs /dev/mapper/vg-images rw
33 21 0:42 / /with\\040space rw - tmpfs tmpfs rw
30 21 0:40 / /data rw - btrfs /dev/sdb rw,subvol=/
"""

GUID = "22223456900565308"


@pytest.fixture
def fs(tmp_path: Path) -> FakeDisks:
    """sda has / and a pool's member on partitions; sdb to sdd are whole."""
    made = FakeDisks(tmp_path / "root")
    for host, name in enumerate(("sda", "sdb", "sdc", "sdd")):
        hba(made, name, host)
        made.number(name, f"8:{16 * host}")
    made.partition("sda", "sda2", "8:2")
    made.partition("sda", "sda3", "8:3")
    made.file("/proc/self/mountinfo", MOUNTS)
    return made


@pytest.fixture(autouse=True)
def no_zpool(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, seconds: float) -> str:
        raise commands.ToolUnavailable(f"{command[0]}: no such program")

    monkeypatch.setattr(commands, "run", run)


def under(fs: FakeDisks, kind: str, source: str, number: str = "0:50") -> Storage:
    mount = FilesystemMount(number, "/srv", kind, source)
    return FileSystems(fs, zfs.ZfsPools(fs)).under(mount)


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


def test_one_device(fs: FakeDisks) -> None:
    assert under(fs, "ext4", "/dev/root", "8:2") == on_devices(["sda2"])
    assert under(fs, "xfs", "/dev/sdb") == on_devices(["sdb"])


def test_all_members_of_a_btrfs(fs: FakeDisks) -> None:
    for name in ("sdb", "sdc"):
        fs.file(f"/sys/fs/btrfs/1-2/devices/{name}", "")
    fs.file("/sys/fs/btrfs/3-4/devices/sdd", "")
    assert under(fs, "btrfs", "/dev/sdc") == on_devices(["sdb", "sdc"])


@pytest.mark.parametrize("source", ["/dev/sdb:/dev/sdc", "/dev/sdc", "sdb:sdc"])
def test_all_members_of_a_bcachefs(fs: FakeDisks, source: str) -> None:
    for number, name in enumerate(("sdb", "sdc")):
        target = str(Path(fs.root) / f"sys/block/{name}")
        fs.link_to(f"/sys/fs/bcachefs/8a4283ce/dev-{number}/block", target)
    fs.link_to("/sys/fs/bcachefs/sdd/dev-0/block", str(Path(fs.root) / "sys/block/sdd"))
    assert under(fs, "bcachefs", source) == on_devices(["sdb", "sdc"])


def test_a_bcachefs_that_sysfs_does_not_know_is_on_what_it_names(fs: FakeDisks) -> None:
    assert under(fs, "bcachefs", "/dev/sdb:/dev/sdc") == on_devices(["sdb", "sdc"])
    said = not_followed("/srv is bcachefs of UUID=8a42")
    assert under(fs, "bcachefs", "UUID=8a42") == said


@pytest.mark.parametrize(
    ("kind", "source", "what"),
    [
        ("nfs4", "filer:/export", "NFS filer:/export"),
        ("nfs", "10.0.0.1:/vm", "NFS 10.0.0.1:/vm"),
        ("cifs", "//nas/vm", "SMB //nas/vm"),
        ("ceph", "10.0.0.1:6789:/", "CephFS 10.0.0.1:6789:/"),
        ("fuse.glusterfs", "172.16.11.110:system_mail1", "GlusterFS 172.16.11.110:system_mail1"),
    ],
)
def test_file_systems_of_other_machines(fs: FakeDisks, kind: str, source: str, what: str) -> None:
    assert under(fs, kind, source) == on_network(what)


def test_memory_is_no_disk_and_what_is_not_known_is_said(fs: FakeDisks) -> None:
    assert under(fs, "tmpfs", "tmpfs") == NOWHERE
    said = not_followed("/srv is fuse.mergerfs of /mnt/disk1:/mnt/disk2")
    assert under(fs, "fuse.mergerfs", "/mnt/disk1:/mnt/disk2") == said
    assert under(fs, "overlay", "over\nlay") == not_followed("/srv is overlay of over?lay")


def member(fs: FakeDisks, number: str, pool: str, guid: str = GUID) -> None:
    """udev's record of a device that is in a pool."""
    text = f"S:disk/by-label/{pool}\nE:ID_FS_LABEL={pool}\nE:ID_FS_UUID={guid}\n"
    fs.file(f"/run/udev/data/b{number}", f"{text}E:ID_FS_TYPE=zfs_member\nG:systemd")


def test_a_zfs_dataset_by_what_udev_knows_of_its_pool(fs: FakeDisks) -> None:
    member(fs, "8:3", "rpool")
    member(fs, "8:16", "rpool")
    member(fs, "8:32", "rpool2")
    fs.file("/run/udev/data/b8:48", "E:ID_FS_LABEL=rpool\nE:ID_FS_TYPE=ext4")
    fs.file("/run/udev/data/c1:3", "E:ID_FS_LABEL=rpool\nE:ID_FS_TYPE=zfs_member")
    for source in ("rpool", "rpool/ROOT/pve-1", "rpool/data@yesterday"):
        assert under(fs, "zfs", source) == on_devices(["sda3", "sdb"])


def test_a_disk_that_has_left_a_pool_does_not_count(fs: FakeDisks) -> None:
    member(fs, "8:16", "tank")
    member(fs, "8:32", "tank", "999")
    fs.file("/proc/spl/kstat/zfs/tank/guid", GUID)
    assert under(fs, "zfs", "tank/vm") == on_devices(["sdb"])


ZPOOL = """\
tank\t494T\t399T\t95.3T\t-\t-\t41%\t80%\t1.00x\tONLINE\t-
\tmirror-0\t14.5T\t12.3T\t2.22T\t-\t-\t42%\t84.7%\t-\tONLINE
\t/dev/sdb\t14.6T\t-\t-\t-\t-\t-\t-\t-\tONLINE
\t/dev/sdc\t14.6T\t-\t-\t-\t-\t-\t-\t-\tONLINE
logs\t-\t-\t-\t-\t-\t-\t-\t-\t-
\t/dev/sda3\t16G\t-\t-\t-\t-\t-\t-\t-\tONLINE
\t/srv/spare.img\t16G\t-\t-\t-\t-\t-\t-\t-\tAVAIL
"""


def test_what_zpool_lists(fs: FakeDisks, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*command: str, seconds: float) -> str:
        asked.append(command)
        return ZPOOL

    monkeypatch.setattr(commands, "run", run)
    assert zfs.paths(ZPOOL) == ["/dev/sdb", "/dev/sdc", "/dev/sda3", "/srv/spare.img"]
    assert under(fs, "zfs", "tank/vm") == on_devices(["sdb", "sdc", "sda3", "sda2"])
    assert asked == [("zpool", "list", "-vHPL", "tank")]
    assert under(fs, "zfs", "-o") == not_followed("ZFS pool -o: this is no pool's name")
    assert len(asked) == 1


def test_a_pool_is_asked_about_once_until_it_is_looked_at_again(
    fs: FakeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*command: str, seconds: float) -> str:
        asked.append(command)
        return ZPOOL

    monkeypatch.setattr(commands, "run", run)
    found = FileSystems(fs, zfs.ZfsPools(fs))
    for source in ("tank/a", "tank/b"):
        found.under(FilesystemMount("0:50", "/srv", "zfs", source))
    assert len(asked) == 1
    found.look_again()
    found.pool("tank")
    assert len(asked) == 2


def test_a_pool_whose_members_nobody_knows_is_said(
    fs: FakeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert under(fs, "zfs", "tank") == not_followed("ZFS pool tank: zpool: no such program")
    monkeypatch.setattr(commands, "run", lambda *_, seconds: "tank\t1T")
    assert under(fs, "zfs", "tank") == not_followed("ZFS pool tank: zpool names no device of it")


@pytest.mark.large
def test_a_zpool_that_hangs_keeps_its_last_answer(
    fs: FakeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "ZPOOL", 0.1)
    ends = threading.Event()
    monkeypatch.setattr(commands, "run", lambda *_, seconds: ZPOOL)
    pools = zfs.ZfsPools(fs)
    found = FileSystems(fs, pools)
    before = found.pool("tank")

    def hangs(*_: str, seconds: float) -> str:
        ends.wait(10)
        return ""

    monkeypatch.setattr(commands, "run", hangs)
    found.look_again()
    assert found.pool("tank") == before
    assert found.pool("other") == not_answered("ZFS pool other: zpool does not answer")
    ends.set()


def test_a_zvol_is_on_its_pool(fs: FakeDisks) -> None:
    """As QubesOS/qubes-core-admin pull 522 has udev's record."""
    fs.add("zd544", f"{LOOP}zd544", offered="")
    fs.file(f"{LOOP}zd544/dev", "230:544")
    found = FileSystems(fs, zfs.ZfsPools(fs))
    unknown = not_followed("ZFS volume zd544: udev knows no link /dev/zvol/... to it")
    assert found.volume("zd544") == unknown
    fs.file("/run/udev/data/b230:544", "N:zd544\nS:zvol/fortress/qubes/sys-usb/root")
    member(fs, "8:32", "fortress")
    assert found.volume("zd544") == on_devices(["sdc"])
