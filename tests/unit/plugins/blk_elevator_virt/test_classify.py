# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of disk by the paths and files that its kernel shows."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.blockdev import AHCI, VIRTIO, FakeDisks, hba
from tuned_virt.kernel import timeouts
from tuned_virt.plugins.blk_elevator_virt import state
from tuned_virt.plugins.blk_elevator_virt.classify import Attachment, DiskFacts, Pci, classify

P = "/sys/devices/pci0000:00/0000:00:05.0"
QEMU = Pci("x", "8086", "2922", "1af4")
REAL = Pci("x", "8086", "a282", "1028")

CASES = [
    (DiskFacts("vda", f"{P}/virtio1/block/vda"), Attachment.VIRTIO_BLK, True),
    (
        DiskFacts("vda", "/sys/devices/css0/0.0.1/0.0.0001/virtio1/block/vda"),
        Attachment.VIRTIO_BLK,
        True,
    ),
    (
        DiskFacts("sda", f"{P}/virtio2/host2/target2:0:0/2:0:0:0/block/sda", "virtio_scsi", "QEMU"),
        Attachment.VIRTIO_SCSI,
        True,
    ),
    (
        DiskFacts("sda", f"{P}/virtio2/host2/target2:0:0/2:0:0:0/block/sda", "virtio_scsi", "DELL"),
        Attachment.LUN,
        False,
    ),
    (
        DiskFacts("sdb", "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb"),
        Attachment.ISCSI,
        False,
    ),
    (
        DiskFacts("sdb", f"{P}/host3/session1/target3:0:0/3:0:0:1/block/sdb", "qla4xxx", "NETAPP"),
        Attachment.ISCSI,
        False,
    ),
    (
        DiskFacts("sda", f"{P}/ata1/host0/t/0:0:0:0/block/sda", "ahci", "ATA", pci=QEMU),
        Attachment.ATA,
        True,
    ),
    (
        DiskFacts("sda", f"{P}/ata1/host0/t/0:0:0:0/block/sda", "ahci", "ATA", pci=REAL),
        Attachment.ATA,
        False,
    ),
    (
        DiskFacts("sdc", f"{P}/usb1/1-1/1-1:1.0/host4/t/4:0:0:0/block/sdc", "usb-storage"),
        Attachment.USB,
        True,
    ),
    (
        DiskFacts("sdd", f"{P}/host5/t/5:2:0:0/block/sdd", "megaraid_sas", "DELL", pci=REAL),
        Attachment.HBA,
        False,
    ),
    (
        DiskFacts("sdd", f"{P}/host5/t/5:2:0:0/block/sdd", "megaraid_sas", "QEMU", pci=REAL),
        Attachment.HBA,
        True,
    ),
    (
        DiskFacts(
            "sdd", f"{P}/host5/t/5:0:0:0/block/sdd", "", "VMware", pci=Pci("vmw_pvscsi", "15ad")
        ),
        Attachment.HBA,
        True,
    ),
    (
        DiskFacts("sdd", "/sys/devices/pseudo_0/adapter0/host2/t/2:0:0:0/block/sdd"),
        Attachment.HBA,
        False,
    ),
    (
        DiskFacts("sr0", f"{P}/ata1/host0/t/0:0:0:0/block/sr0", "ahci", pci=QEMU),
        Attachment.OPTICAL,
        False,
    ),
    (
        DiskFacts(
            "nvme0n1", f"{P}/nvme/nvme0/nvme0n1", transport="pcie", pci=Pci("nvme", "1b36", "0010")
        ),
        Attachment.NVME,
        True,
    ),
    (
        DiskFacts("nvme0n1", f"{P}/nvme/nvme0/nvme0n1", transport="pcie", pci=REAL),
        Attachment.NVME,
        False,
    ),
    (
        DiskFacts("nvme0c0n1", f"{P}/nvme/nvme0/nvme0c0n1", transport="pcie", pci=REAL),
        Attachment.NVME,
        False,
    ),
    (
        DiskFacts("nvme0n1", "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"),
        Attachment.NVME_HEAD,
        False,
    ),
    (
        DiskFacts(
            "nvme1n1", "/sys/devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1", transport="tcp"
        ),
        Attachment.NVME_FABRICS,
        False,
    ),
    (
        DiskFacts("sda", "/sys/devices/x/VMBUS:01/y/host3/t/3:0:0:0/block/sda", "storvsc_host"),
        Attachment.HYPERV,
        True,
    ),
    (
        DiskFacts(
            "mmcblk0", "/sys/devices/platform/fe300000.mmc/mmc_host/mmc0/mmc0:1/block/mmcblk0"
        ),
        Attachment.MMC,
        False,
    ),
    (DiskFacts("xvda", "/sys/devices/vbd-51712/block/xvda"), Attachment.XEN, True),
    (
        DiskFacts("dm-0", "/sys/devices/virtual/block/dm-0", dm_uuid="mpath-3600"),
        Attachment.MULTIPATH,
        False,
    ),
    (DiskFacts("dm-1", "/sys/devices/virtual/block/dm-1", dm_uuid="LVM-abc"), Attachment.DM, False),
    (DiskFacts("md0", "/sys/devices/virtual/block/md0"), Attachment.MD, False),
    (DiskFacts("md_d0", "/sys/devices/virtual/block/md_d0"), Attachment.MD, False),
    (DiskFacts("loop3", "/sys/devices/virtual/block/loop3"), Attachment.LOOP, False),
    (DiskFacts("zram0", "/sys/devices/virtual/block/zram0"), Attachment.OTHER, False),
    (DiskFacts("bcache0", "/sys/devices/virtual/block/bcache0"), Attachment.BCACHE, False),
    (DiskFacts("drbd1000", "/sys/devices/virtual/block/drbd1000"), Attachment.DRBD, False),
    (DiskFacts("zd544", "/sys/devices/virtual/block/zd544"), Attachment.ZVOL, False),
    (DiskFacts("nbd0", "/sys/devices/virtual/block/nbd0"), Attachment.NBD, False),
    (DiskFacts("rbd0", "/sys/devices/rbd/0/block/rbd0"), Attachment.RBD, False),
    (DiskFacts("fd0", "/sys/devices/platform/floppy.0/block/fd0"), Attachment.OTHER, False),
]


@pytest.mark.parametrize(("facts", "kind", "emulated"), CASES)
def test_kinds(facts: DiskFacts, kind: Attachment, emulated: bool) -> None:
    found = classify(facts)
    assert (found.kind, found.emulated) == (kind, emulated)
    assert found.fact


def test_every_kind_is_tried() -> None:
    assert {kind for _, kind, _ in CASES} == set(Attachment)


@pytest.mark.parametrize(
    ("text", "offered", "active"),
    [
        ("[none] mq-deadline kyber bfq", ("none", "mq-deadline", "kyber", "bfq"), "none"),
        ("noop deadline [cfq]", ("noop", "deadline", "cfq"), "cfq"),
        ("[none]", ("none",), "none"),
        ("none", (), ""),
        ("", (), ""),
        (None, (), ""),
    ],
)
def test_what_a_queue_offers(text: str | None, offered: tuple[str, ...], active: str) -> None:
    assert state.schedulers(text) == (offered, active)


def test_facts_are_read_from_sysfs(tmp_path: Path) -> None:
    fs = FakeDisks(tmp_path)
    fs.add("vda", f"{VIRTIO}vda", queues=4)
    fs.add("sda", f"{AHCI}sda", device__vendor="ATA")
    fs.file("/sys/class/scsi_host/host0/proc_name", "ahci")
    fs.controller("sda", vendor="0x8086", device="0x2922", subsystem_vendor="0x1af4")
    hba(fs, "sdb", 5)
    fs.add("nvme0n1", "{pci}/nvme/nvme0/nvme0n1")
    fs.controller("nvme0n1", vendor="0x1b36", device="0x0010", subsystem_vendor="0x1af4")
    disks = state.DiskReader(fs).read()
    facts = {name: disk.attached.fact for name, disk in disks.items()}
    assert facts == {
        "vda": "virtio_blk",
        "sda": "driver ahci, PCI 8086:2922 of QEMU",
        "sdb": "driver megaraid_sas, PCI 1000:005d",
        "nvme0n1": "PCI 1b36:0010 of QEMU",
    }
    assert disks["vda"].queues == 4


def test_layers_are_followed_to_the_queues_that_count(tmp_path: Path) -> None:
    fs = FakeDisks(tmp_path)
    for number, name in enumerate(("sda", "sdb", "sdc", "sdd")):
        hba(fs, name, number)
    fs.partition("sda", "sda2", "8:2")
    for name, below in {
        "md0": ["sda2", "sdb"],
        "dm-0": ["md0", "sdb"],
        "dm-1": ["dm-0"],
    }.items():
        fs.add(name, f"/sys/devices/virtual/block/{name}", offered="", dm__uuid="LVM-x")
        fs.slaves(name, *below)
    fs.add("dm-2", "/sys/devices/virtual/block/dm-2", dm__uuid="mpath-x")
    fs.slaves("dm-2", "sdc", "sdd")
    fs.add("dm-3", "/sys/devices/virtual/block/dm-3", offered="", dm__uuid="LVM-y")
    fs.slaves("dm-3", "dm-2")
    disks = state.DiskReader(fs).read()
    assert state.queues_of("dm-1", disks) == {"sda", "sdb"}
    assert state.queues_of("sdb", disks) == {"sdb"}
    assert state.queues_of("dm-3", disks) == {"dm-2"}
    assert state.queues_of("nothing", disks) == frozenset()
    assert state.above(disks)["sda"] == {"md0", "dm-0", "dm-1"}
    assert state.bypassed(disks) == {"sdc": "dm-2", "sdd": "dm-2"}


def test_a_multipath_head_is_made_of_its_hidden_paths(tmp_path: Path) -> None:
    fs = FakeDisks(tmp_path)
    head = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"
    fs.add("nvme0n1", head, offered="")
    fs.add("nvme0c0n1", "{pci}/nvme/nvme0/nvme0c0n1")
    fs.add("nvme0c1n1", "{pci}/nvme/nvme1/nvme0c1n1")
    disks = state.DiskReader(fs).read()
    assert state.queues_of("nvme0n1", disks) == {"nvme0c0n1", "nvme0c1n1"}


def test_a_disk_that_does_not_answer_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = FakeDisks(tmp_path)
    fs.add("vda", f"{VIRTIO}vda")
    fs.add("vdb", f"{VIRTIO}vdb")
    drained = threading.Event()
    read = FakeDisks.read

    def hangs(self: FakeDisks, path: str) -> str:
        if path == "/sys/block/vda/queue/scheduler":
            drained.wait()
        return read(self, path)

    monkeypatch.setattr(FakeDisks, "read", hangs)
    monkeypatch.setattr(timeouts, "DISKS_READ", 0.1)
    reader = state.DiskReader(fs)
    for _ in range(2):
        disks = reader.read()
        assert (disks["vda"].trouble, disks["vda"].offered) == ("no answer", ())
        assert disks["vdb"].scheduler == "none"
    drained.set()


def test_a_disk_that_answers_no_more_is_still_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verify would say that it is gone, and not fail for the scheduler that it has not got."""
    fs = FakeDisks(tmp_path)
    fs.add("vda", f"{VIRTIO}vda")
    monkeypatch.setattr(timeouts, "DISKS_READ", 0.1)
    reader = state.DiskReader(fs)
    (before,) = reader.read().values()
    drained = threading.Event()
    read = FakeDisks.read

    def hangs(self: FakeDisks, path: str) -> str:
        if path.endswith("/queue/scheduler"):
            drained.wait()
        return read(self, path)

    monkeypatch.setattr(FakeDisks, "read", hangs)
    assert reader.read() == {"vda": replace(before, trouble=state.SILENT)}
    drained.set()
