# SPDX-License-Identifier: GPL-2.0-or-later
"""The fact that decided how a disk is attached, in the words that the command shows."""

from __future__ import annotations

import pytest

from tuned_virt.plugins.blk_elevator_virt.classify import (
    Attachment,
    DiskClass,
    DiskFacts,
    Pci,
    classify,
)

P = "/sys/devices/pci0000:00/0000:00:05.0"
SCSI = f"{P}/host5/t/5:2:0:0/block/sda"
NVME = f"{P}/nvme/nvme0/nvme0n1"
VIRTIO = f"{P}/virtio2/host2/target2:0:0/2:0:0:0/block/sda"
REAL = Pci("ahci", "8086", "a282", "1028")


def virtual(name: str, dm_uuid: str = "") -> DiskFacts:
    return DiskFacts(name, f"/sys/devices/virtual/block/{name}", dm_uuid=dm_uuid)


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (virtual("dm-0", "mpath-3600"), DiskClass(Attachment.MULTIPATH, False, "dm/uuid: mpath")),
        (virtual("dm-0", "CRYPT-LUKS2-x"), DiskClass(Attachment.DM, False, "dm/uuid: CRYPT")),
        (virtual("dm-0"), DiskClass(Attachment.DM, False, "dm/uuid: no UUID")),
        (virtual("md127"), DiskClass(Attachment.MD, False, "virtual device md")),
        (virtual("loop0"), DiskClass(Attachment.LOOP, False, "virtual device loop")),
        (virtual("mdraid"), DiskClass(Attachment.OTHER, False, "virtual device")),
        (virtual("loopback"), DiskClass(Attachment.OTHER, False, "virtual device")),
        (virtual("nbd-md0"), DiskClass(Attachment.OTHER, False, "virtual device")),
        (
            DiskFacts("nvme0n1", "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"),
            DiskClass(Attachment.NVME_HEAD, False, "/devices/virtual/nvme-subsystem/"),
        ),
        *(
            (
                DiskFacts("n", NVME, transport=way),
                DiskClass(Attachment.NVME_FABRICS, False, f"transport {way}"),
            )
            for way in ("tcp", "rdma", "fc", "loop")
        ),
        (
            DiskFacts("n", NVME, transport="pcie", pci=Pci("nvme", "1b36", "0010", "1af4")),
            DiskClass(Attachment.NVME, True, "PCI 1b36:0010 of QEMU"),
        ),
        (
            DiskFacts("n", NVME, transport="pcie", pci=Pci("nvme", "8086", "5845", "1af4")),
            DiskClass(Attachment.NVME, True, "PCI 8086:5845 of QEMU"),
        ),
        (
            DiskFacts("n", NVME, transport="pcie", pci=Pci("nvme", "144d", "a808", "144d")),
            DiskClass(Attachment.NVME, False, "PCI 144d:a808: not from a known emulator"),
        ),
        (
            DiskFacts("sr0", f"{P}/ata1/host0/t/0/block/sr0"),
            DiskClass(Attachment.OPTICAL, False, "an optical drive"),
        ),
        (
            DiskFacts("sda", f"{P}/host3/session1/t/block/sda", "qla4xxx"),
            DiskClass(Attachment.ISCSI, False, "an iSCSI session of qla4xxx"),
        ),
        (
            DiskFacts("sda", f"{P}/host3/session1/t/block/sda", pci=Pci("be2iscsi")),
            DiskClass(Attachment.ISCSI, False, "an iSCSI session of be2iscsi"),
        ),
        (
            DiskFacts("sda", "/sys/devices/platform/host3/session1/t/block/sda"),
            DiskClass(Attachment.ISCSI, False, "an iSCSI session of an unknown driver"),
        ),
        (
            DiskFacts("sda", VIRTIO, vendor="QEMU"),
            DiskClass(Attachment.VIRTIO_SCSI, True, "virtio_scsi, INQUIRY QEMU", vendor="QEMU"),
        ),
        (
            DiskFacts("sda", VIRTIO),
            DiskClass(Attachment.VIRTIO_SCSI, True, "virtio_scsi, INQUIRY unknown"),
        ),
        (
            DiskFacts("sda", VIRTIO, vendor="DELL"),
            DiskClass(Attachment.LUN, False, "virtio_scsi, but INQUIRY says DELL", vendor="DELL"),
        ),
        (
            DiskFacts("sda", SCSI, "virtio_scsi", "Google"),
            DiskClass(Attachment.VIRTIO_SCSI, True, "virtio_scsi, INQUIRY Google", vendor="Google"),
        ),
        (
            DiskFacts("sda", f"{P}/usb1/1-1/host4/t/block/sda", "usb-storage"),
            DiskClass(Attachment.USB, True, "a USB port"),
        ),
        (
            DiskFacts("sda", f"{P}/ata1/host0/t/block/sda", "ata_piix", "ATA", pci=REAL),
            DiskClass(Attachment.ATA, False, "driver ata_piix, PCI 8086:a282", "ata_piix"),
        ),
        (
            DiskFacts("sda", f"{P}/ata1/host0/t/block/sda", "", "ATA", pci=REAL),
            DiskClass(Attachment.ATA, False, "driver ahci, PCI 8086:a282", "ahci"),
        ),
        (
            DiskFacts("sda", SCSI, "mptspi", pci=Pci("x", "1000", "0030", "15ad")),
            DiskClass(Attachment.HBA, True, "driver mptspi, PCI 1000:0030 of VMware", "mptspi"),
        ),
        (
            DiskFacts("sda", SCSI, "vmw_pvscsi", pci=Pci("x", "15ad", "07c0", "9999")),
            DiskClass(
                Attachment.HBA, True, "driver vmw_pvscsi, PCI 15ad:07c0 of VMware", "vmw_pvscsi"
            ),
        ),
        (
            DiskFacts("sda", SCSI, "megaraid_sas", "QEMU", pci=REAL),
            DiskClass(
                Attachment.HBA,
                True,
                "driver megaraid_sas, PCI 8086:a282 of QEMU by INQUIRY",
                "megaraid_sas",
            ),
        ),
        (
            DiskFacts("sda", "/sys/devices/pseudo_0/adapter0/host2/t/block/sda"),
            DiskClass(Attachment.HBA, False, "driver unknown", ""),
        ),
        (
            DiskFacts("sda", SCSI, "mpt2sas", "DELL", pci=REAL, driver="mpt3sas"),
            DiskClass(Attachment.HBA, False, "driver mpt3sas, PCI 8086:a282", "mpt3sas"),
        ),
        (
            DiskFacts("sda", SCSI, "storvsc_host", "Msft"),
            DiskClass(Attachment.HYPERV, True, "driver hv_storvsc, INQUIRY Msft", "hv_storvsc"),
        ),
        (
            DiskFacts("sda", f"{P}/ata1/host0/t/block/sda", "ahci", "ATA", model="VBOX HARDDISK"),
            DiskClass(Attachment.ATA, True, "driver ahci of VBOX HARDDISK by INQUIRY", "ahci"),
        ),
        (
            DiskFacts("sda", f"{P}/ata1/host0/t/block/sda", "ahci", "ATA", model="Virtuosity"),
            DiskClass(Attachment.ATA, False, "driver ahci", "ahci"),
        ),
        (
            DiskFacts("sda", VIRTIO, "virtio_scsi", "Pure"),
            DiskClass(Attachment.LUN, False, "virtio_scsi, but INQUIRY says Pure", vendor="Pure"),
        ),
        (
            DiskFacts("sda", VIRTIO, "virtio_scsi", "Nobody"),
            DiskClass(Attachment.VIRTIO_SCSI, True, "virtio_scsi, INQUIRY Nobody", vendor="Nobody"),
        ),
        (
            DiskFacts("vda", f"{P}/virtio1/block/vda"),
            DiskClass(Attachment.VIRTIO_BLK, True, "virtio_blk"),
        ),
        (
            DiskFacts("m", "/sys/devices/platform/x/mmc_host/mmc0/block/m"),
            DiskClass(Attachment.MMC, False, "an MMC host"),
        ),
        (
            DiskFacts("x", "/sys/devices/vbd-1/block/x"),
            DiskClass(Attachment.XEN, True, "a Xen block device"),
        ),
        (
            DiskFacts("f", "/sys/devices/f/block/f"),
            DiskClass(Attachment.OTHER, False, "unknown"),
        ),
    ],
)
def test_what_decided(facts: DiskFacts, found: DiskClass) -> None:
    assert classify(facts) == found
