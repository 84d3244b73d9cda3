# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of clouds and hypervisors, as people have shown their sysfs in public; made-up trees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.unit.blockdev import FakeDisks
from tuned_virt.kernel.block_device import BlockDevice
from tuned_virt.kernel.udev_rules import sets
from tuned_virt.plugins.blk_elevator_virt import DisksTuner, judge, parse
from tuned_virt.plugins.blk_elevator_virt.classify import (
    EMULATORS,
    PARAVIRTUAL,
    STORVSC,
)
from tuned_virt.plugins.blk_elevator_virt.policy import CLASSES
from tuned_virt.plugins.blk_elevator_virt.udev_rules import rule_file

MANUAL = Path(__file__).resolve().parents[4] / "docs/disks.7.md"


@dataclass(frozen=True)
class Seen:
    """A disk as somebody has shown it: at which public address, and where sysfs has it.

    row     of the manual's table, "" for a variant of one that has a row
    option  that decides on it in a guest
    driver  of the device above its SCSI host, as the link in sysfs names it
    pci     vendor, device and subsystem's vendor of its PCI function
    """

    row: str
    source: str
    path: str
    option: str
    proc_name: str = ""
    driver: str = ""
    inquiry: str = ""
    model: str = ""
    pci: str = ""
    queues: int = 4

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


VMBUS = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/PNP0A03:00/device:07/VMBUS:01"
PCI = "/sys/devices/pci0000:00"
VIRTIO, EMULATED, NVME, PASSED = (
    f"guest_{name}" for name in ("virtio", "emulated", "nvme", "passthrough")
)

SEEN = (
    Seen(
        "Azure, Hyper-V: SCSI",
        "github.com/Azure/acs-engine/issues/1918",
        f"{VMBUS}/f8b3781b-1e82-4818-a1c3-63d806ec15bb/host3/target3:0:0/3:0:0:0/block/sdc",
        *(VIRTIO, STORVSC, "hv_storvsc", "Msft", "Virtual Disk"),
    ),
    Seen(
        "",  # a disk of the host passed through, which names its maker: the controller decides
        "github.com/microsoft/openvmm/issues/3107",
        "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/27b553e8/host0/target0:0:0"
        "/0:0:0:1/block/sda",
        *(VIRTIO, STORVSC, "hv_storvsc", "SEAGATE", "ST1200MM0099"),
        queues=1,
    ),
    Seen(
        "Azure: NVMe",
        "github.com/canonical/cloud-init/issues/4598",
        "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/80c97e1e-15c4/pci15c4:00"
        "/15c4:00:00.0/nvme/nvme0/nvme0n1",
        NVME,
        pci="1414 00a9 1414",
    ),
    Seen(
        "Oracle Cloud: paravirtualized",
        "github.com/oracle/cluster-api-provider-oci/issues/388",
        f"{PCI}/0000:00:04.0/virtio0/host2/target2:0:1/2:0:1:1/block/sda",
        *(VIRTIO, "virtio_scsi", "virtio_scsi", "ORACLE", "BlockVolume", "1af4 1004 1af4", 1),
    ),
    Seen(
        "Oracle Cloud: iSCSI",
        "github.com/openshift/assisted-service, docs on iSCSI boot",
        "/sys/devices/platform/host0/session1/target0:0:0/0:0:0:1/block/sda",
        *(PASSED, "iscsi_tcp", "", "ORACLE", "BlockVolume"),
    ),
    Seen(
        "Scaleway",
        "github.com/scaleway/docs-content/pull/5562",
        f"{PCI}/0000:00:05.0/virtio2/host2/target2:0:0/2:0:0:0/block/sda",
        *(VIRTIO, "virtio_scsi", "virtio_scsi", "SCW", "sbs", "1af4 1004 1af4"),
    ),
    Seen(
        "Nutanix AHV",
        "lore.kernel.org/linux-pci/20221209205617.GA1732532@bhelgaas, in the thread",
        f"{PCI}/0000:00:01.0/0000:01:00.0/virtio0/host6/target6:0:0/6:0:0:0/block/sda",
        *(VIRTIO, "virtio_scsi", "virtio_scsi", "NUTANIX", "VDISK", "1af4 1048 1af4"),
    ),
    Seen(
        "",
        "the same in another spelling",
        f"{PCI}/0000:00:01.0/0000:01:00.0/virtio0/host6/target6:0:0/6:0:0:1/block/sdb",
        *(VIRTIO, "virtio_scsi", "virtio_scsi", "Nutanix", "VDISK", "1af4 1048 1af4"),
    ),
    Seen(
        "Google: persistent disk and local SSD by SCSI",
        "github.com/coreos/bugs/issues/1465",
        f"{PCI}/0000:00:04.0/virtio1/host1/target1:0:1/1:0:1:0/block/sdb",
        *(VIRTIO, "virtio_scsi", "virtio_scsi", "Google", "EphemeralDisk", "1af4 1004 1af4"),
    ),
    Seen(
        "Google: NVMe",
        "github.com/coreos/bugs/issues/2476",
        f"{PCI}/0000:00:02.0/nvme/nvme0/nvme0n1",
        NVME,
        pci="1ae0 001f 1ae0",
    ),
    Seen(
        "AWS: EBS and instance store by NVMe",
        "github.com/ryran/xsos/pull/273",
        f"{PCI}/0000:00:04.0/nvme/nvme0/nvme0n1",
        NVME,
        pci="1d0f 8061 1d0f",
    ),
    Seen(
        "AWS: xvd; Xen, XCP-ng, XenServer",
        "github.com/amazonlinux/amazon-ec2-utils/pull/3",
        "/sys/devices/vbd-51712/block/xvda",
        VIRTIO,
    ),
    Seen(
        "VMware: PVSCSI",
        "github.com/CentOS/sig-cloud-instance-build/pull/97",
        f"{PCI}/0000:00:15.0/0000:03:00.0/host2/target2:0:0/2:0:0:0/block/sda",
        *(EMULATED, "vmw_pvscsi", "vmw_pvscsi", "VMware", "Virtual disk", "15ad 07c0 15ad", 1),
    ),
    Seen(
        "VMware: LSI Logic",
        "github.com/home-assistant/operating-system/pull/1060",
        f"{PCI}/0000:00:10.0/host2/target2:0:0/2:0:0:0/block/sda",
        *(EMULATED, "mptspi", "mptspi", "VMware,", "VMware Virtual S", "1000 0030 15ad", 1),
    ),
    Seen(
        "VMware: NVMe",
        "github.com/spdk/spdk/issues/1602",
        f"{PCI}/0000:00:15.0/0000:03:00.0/nvme/nvme0/nvme0n1",
        NVME,
        pci="15ad 07f0 15ad",
    ),
    Seen(
        "VirtualBox: SATA",
        "github.com/boot2docker/boot2docker/issues/1375",
        f"{PCI}/0000:00:0d.0/ata3/host2/target2:0:0/2:0:0:0/block/sda",
        *(EMULATED, "ahci", "ahci", "ATA", "VBOX HARDDISK", "8086 2829 0000", 1),
    ),
    Seen(
        "Alibaba: virtio; OpenStack, DigitalOcean: vd",
        "github.com/systemd/systemd/issues/17670",
        f"{PCI}/0000:00:02.3/0000:04:00.0/virtio2/block/vda",
        VIRTIO,
    ),
    Seen(
        "Alibaba: NVMe",
        "github.com/virt-s1/os-tests/pull/383",
        f"{PCI}/0000:00:05.0/nvme/nvme0/nvme0n1",
        NVME,
        pci="1ded 5003 1ded",
    ),
    Seen(
        "OpenStack: SCSI",
        "github.com/os-migrate/os-migrate/issues/540",
        f"{PCI}/0000:00:04.0/virtio1/host2/target2:0:0/2:0:0:0/block/sda",
        *(VIRTIO, "virtio_scsi", "virtio_scsi", "QEMU", "QEMU HARDDISK", "1af4 1004 1af4", 1),
    ),
    Seen(
        "Hetzner, DigitalOcean: volumes",
        "wiki.hetzner.de/index.php/CloudServer",
        f"{PCI}/0000:00:02.0/virtio2/host2/target2:0:0/2:0:0:3/block/sdb",
        *(VIRTIO, "virtio_scsi", "virtio_scsi", "HC", "Volume", "1af4 1048 1af4"),
    ),
    Seen(
        "LUNs of an array through virtio-scsi",
        "libvirt.org/formatdomain.html, device='lun'",
        f"{PCI}/0000:00:04.0/virtio1/host2/target2:0:0/2:0:0:0/block/sda",
        *(PASSED, "virtio_scsi", "virtio_scsi", "PURE", "FlashArray", "1af4 1048 1af4"),
    ),
    Seen(
        "HBAs passed through",
        "github.com/openmediavault/openmediavault/issues/1852",
        f"{PCI}/0000:00:06.0/host5/target5:1:0/5:1:0:0/block/sdd",
        *(PASSED, "mpt2sas", "mpt3sas", "DELL", "Virtual Disk", "1000 0072 1028", 1),
    ),
)


def shown(seen: Seen, root: Path) -> FakeDisks:
    """The tree of one disk; it says that it rotates, as nearly all of them do."""
    fs = FakeDisks(root)
    fs.add(seen.name, seen.path, queues=seen.queues, active="kyber", queue__rotational="1")
    if "/host" in seen.path:
        above, host = re.findall(r"(.*)/(host\d+)/", seen.path)[0]
        fs.file(f"/sys/class/scsi_host/{host}/proc_name", seen.proc_name)
        scsi = seen.path.partition("/block/")[0]
        for file, text in (("vendor", f"{seen.inquiry:8}"), ("model", f"{seen.model:16}")):
            for folder in (scsi, f"{seen.path}/device"):  # a link on a machine
                fs.file(f"{folder}/{file}", text)
        if seen.driver:
            fs.link_to(f"{above}/driver", f"/sys/bus/x/drivers/{seen.driver}")
    elif "/virtio" in seen.path:
        above = seen.path.partition("/block/")[0]
        fs.link_to(f"{above}/driver", "/sys/bus/virtio/drivers/virtio_blk")
    if seen.pci:
        function = re.findall(r".*/[0-9a-f]{4}:[0-9a-f:.]+", seen.path)[0]
        for file, text in zip(("vendor", "device", "subsystem_vendor"), seen.pci.split()):
            fs.file(f"{function}/{file}", f"0x{text}")
    return fs


def verdict(seen: Seen, root: Path) -> tuple[str, str, str, str]:
    """Class, deciding option, its word and the scheduler wanted, in a guest with our defaults."""
    asked = parse({"role": "guest", **{name: one.default or "" for name, one in CLASSES.items()}})
    [found] = judge(asked, DisksTuner().read(shown(seen, root), asked, {}), {})
    return found.disk.attached.kind.value, found.option, found.word, found.wanted


def test_the_virtual_controller_decides_before_what_inquiry_says(tmp_path: Path) -> None:
    for number, seen in enumerate(SEEN):
        kind, option, word, wanted = verdict(seen, tmp_path / str(number))
        assert option == seen.option, seen
        scheduler = {"queues": "none" if seen.queues > 1 else "mq-deadline", "keep": ""}
        assert wanted == scheduler.get(word, word), seen
        assert kind != "other", seen


def rows() -> Iterator[Sequence[str]]:
    part = MANUAL.read_text().split("## CLOUDS")[1].split("\n## ")[0]
    for line in part.splitlines():
        if line.startswith("| ") and not line.startswith("| disks"):
            yield [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def test_the_manual_has_a_row_for_each_with_what_it_gets(tmp_path: Path) -> None:
    expected = {}
    for number, seen in enumerate(SEEN):
        if seen.row:
            kind, option, word, _ = verdict(seen, tmp_path / str(number))
            expected[seen.row] = [kind, f"{option}={word}"]
    written = {row[0]: [row[1], row[2]] for row in rows()}
    assert written == expected
    assert all(len(row) == 4 and len(row[3]) > 9 for row in rows()), "each says why"


def test_the_manual_names_each_emulator_and_each_paravirtual_kind() -> None:
    part = " ".join(MANUAL.read_text().split("## CLOUDS")[1].split("\n## ")[0].split())
    for vendor, maker in EMULATORS.items():
        assert f"{vendor} {maker}" in part
    for kind in PARAVIRTUAL:
        assert kind.value in part


def test_udev_rules_match_their_own_class_and_no_other(tmp_path: Path) -> None:
    """udevadm test on virtio-scsi: a rule on the path of virtio-blk disks had it, too; DRIVERS==
    knows no driver that is called storvsc_host or mpt2sas."""
    trees, rules = {}, {}
    words = {option: "bfq" for option in CLASSES}
    for number, seen in enumerate(SEEN):
        fs = shown(seen, tmp_path / str(number))
        asked = parse({"role": "guest", **words})
        [found] = judge(asked, DisksTuner().read(fs, asked, {}), {})
        trees[number] = fs, BlockDevice(fs, seen.path, "add"), found.disk.attached
        rules[number] = rule_file([found], lambda name: {}, "6.1")
    for number, text in rules.items():
        own = trees[number][2]
        for other, (fs, device, attached) in trees.items():
            alike = (attached.kind, attached.driver, attached.vendor) == (
                *(own.kind, own.driver, own.vendor),
            )
            assert sets(fs, text, device, "queue/scheduler") is alike, (text, SEEN[other])
