# SPDX-License-Identifier: GPL-2.0-or-later
"""How a disk is attached, from what sysfs says of it. Pure.

The controller decides first: the driver of the SCSI host, then its PCI function. `rotational` is
not among the facts: nearly every emulated disk says 1. INQUIRY can lie (guests' XML may name any
vendor, and each cloud has words of its own), so it decides only where nothing better does.

The table is measured on emulated machines of kernel 6.1 (all kinds but Hyper-V, Xen, MMC and
fabrics, which are of public reports; tests/unit/plugins/blk_elevator_virt/test_classify_clouds.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum

from tuned_virt.frozen_dataclasses import dataclass, field


class Attachment(str, Enum):
    """How a disk is attached."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    LUN = "LUN through virtio-scsi"
    HYPERV = "Hyper-V"
    ISCSI = "iSCSI"
    HBA = "SCSI HBA"
    ATA = "SATA"
    USB = "USB"
    NVME = "NVMe"
    NVME_FABRICS = "NVMe over fabrics"
    NVME_HEAD = "NVMe multipath head"
    MMC = "MMC"
    XEN = "Xen"
    MULTIPATH = "dm-multipath"
    DM = "device-mapper"
    MD = "md"
    LOOP = "loop"
    BCACHE = "bcache"
    DRBD = "DRBD"
    ZVOL = "ZFS volume"
    NBD = "nbd"
    RBD = "rbd"
    OPTICAL = "optical"
    OTHER = "other"


SCSI = frozenset(
    {
        Attachment.VIRTIO_SCSI,
        Attachment.LUN,
        Attachment.HYPERV,
        Attachment.ISCSI,
        Attachment.HBA,
        Attachment.ATA,
        Attachment.USB,
        Attachment.MULTIPATH,
    }
)
"""SCSI and SATA disks, and what is made of their paths."""

PARAVIRTUAL = frozenset(
    {Attachment.VIRTIO_BLK, Attachment.VIRTIO_SCSI, Attachment.HYPERV, Attachment.XEN}
)
"""Disks of a hypervisor's own driver for guests: what orders requests is the host."""

NVME = frozenset({Attachment.NVME, Attachment.NVME_FABRICS, Attachment.NVME_HEAD})

LAYERS = frozenset(
    {
        Attachment.DM,
        Attachment.MD,
        Attachment.NVME_HEAD,
        Attachment.BCACHE,
        Attachment.DRBD,
        Attachment.ZVOL,
    }
)
"""Kinds without a scheduler of their own: what lies below counts."""

VIRTUAL_KINDS = (
    ("loop", Attachment.LOOP),
    ("md", Attachment.MD),
    ("bcache", Attachment.BCACHE),
    ("drbd", Attachment.DRBD),
    ("zd", Attachment.ZVOL),
    ("nbd", Attachment.NBD),
)
"""Of /sys/devices/virtual/block, by what a name begins with."""

MADE_OF_DISKS = frozenset(
    {
        Attachment.DM,
        Attachment.MULTIPATH,
        Attachment.MD,
        Attachment.BCACHE,
        Attachment.DRBD,
        Attachment.OTHER,
    }
)
"""Kinds whose slaves/ may have something. The others' is empty (loop devices, of which there may be
a thousand, zvols), or theirs are other links (NVMe multipath heads)."""

EMULATORS: Mapping[str, str] = {
    "1af4": "QEMU",
    "1b36": "QEMU",
    "15ad": "VMware",
    "80ee": "VirtualBox",
    "fb5d": "bhyve",
    "1ab8": "Parallels",
    "1414": "Microsoft",
    "1ae0": "Google",
    "1d0f": "Amazon",
    "1ded": "Alibaba",
}
"""PCI (subsystem) vendors of emulated controllers; QEMU gives its own where a model has none."""

STORVSC = "storvsc_host"
"""What Hyper-V's SCSI controllers, which hang from its VMBus, call themselves."""

VIRTUAL_VENDORS = frozenset({"qemu", "google", "nutanix", "do", "vmware", "vbox", "msft"})
"""What INQUIRY says of disks that a hypervisor makes up itself, in small letters."""

VIRTUAL_MODELS = re.compile(r"(qemu|vbox|vmware|virtual|bhyve)\b", re.IGNORECASE)
"""How INQUIRY's model begins for emulated SATA and IDE disks, whose vendor is ATA."""

DISK_VENDORS = frozenset(
    {
        *("3pardata", "adaptec", "ata", "avago", "broadcom", "compelnt", "datacore", "dell"),
        *("dell emc", "dgc", "emc", "eqlogic", "freenas", "fujitsu", "hgst", "hitachi", "hp"),
        *("hpe", "hp-comp", "huawei", "ibm", "iet", "infinidat", "kioxia", "lenovo", "lio-org"),
        *("lsi", "maxtor", "micron", "nec", "netapp", "nexsan", "nfinidat", "nimble", "pure"),
        *("qnap", "quantum", "samsung", "sandisk", "scst_bio", "scst_fio", "seagate", "sgi"),
        *("sun", "synology", "toshiba", "truenas", "violin", "wd", "wdc", "xiotech", "xtremio"),
    }
)
"""What INQUIRY says of real disks, RAID controllers, arrays and SCSI targets, in small letters."""


@dataclass(frozen=True)
class Pci:
    """A PCI function: its driver, and its ids as four hexadecimal digits."""

    driver: str = ""
    vendor: str = ""
    device: str = ""
    subvendor: str = ""

    @property
    def ids(self) -> str:
        """As lspci has them."""
        return f"{self.vendor}:{self.device}"


@dataclass(frozen=True)
class DiskFacts:
    """What sysfs says of one disk.

    path       of the disk itself, with all that it hangs from
    proc_name  what its SCSI host calls itself: most often its driver's name
    vendor     INQUIRY's, of a SCSI disk
    transport  its NVMe controller's
    pci        the PCI function that it hangs from
    dm_uuid    a device-mapper device's, which begins with what made it
    driver     of the device that its SCSI host belongs to
    model      INQUIRY's
    """

    name: str
    path: str
    proc_name: str = ""
    vendor: str = ""
    transport: str = ""
    pci: Pci = field(default_factory=Pci)
    dm_uuid: str = ""
    driver: str = ""
    model: str = ""


@dataclass(frozen=True)
class DiskClass:
    """The verdict: the kind, whether a hypervisor makes the disk up, and the fact that decided.

    `driver` is that of a SCSI disk's controller, as udev's DRIVERS has it; `vendor` is INQUIRY's,
    of a disk behind virtio-scsi.
    """

    kind: Attachment
    emulated: bool
    fact: str
    driver: str = ""
    vendor: str = ""


def classify(facts: DiskFacts) -> DiskClass:
    """How a disk is attached."""
    if "/devices/virtual/block/" in facts.path:
        return _virtual(facts)
    if "/nvme" in facts.path:
        return _nvme(facts)
    if "/host" in facts.path:
        return _scsi(facts)
    return _others(facts)


def _virtual(facts: DiskFacts) -> DiskClass:
    if facts.name.startswith("dm-"):
        maker = facts.dm_uuid.partition("-")[0] or "no UUID"
        kind = Attachment.MULTIPATH if maker == "mpath" else Attachment.DM
        return DiskClass(kind, False, f"dm/uuid: {maker}")
    for prefix, kind in VIRTUAL_KINDS:
        if re.match(rf"{prefix}[\d_]", facts.name):
            return DiskClass(kind, False, f"virtual device {prefix}")
    return DiskClass(Attachment.OTHER, False, "virtual device")


def _nvme(facts: DiskFacts) -> DiskClass:
    if "/devices/virtual/nvme-subsystem/" in facts.path:
        return DiskClass(Attachment.NVME_HEAD, False, "/devices/virtual/nvme-subsystem/")
    if facts.transport in ("tcp", "rdma", "fc", "loop"):
        return DiskClass(Attachment.NVME_FABRICS, False, f"transport {facts.transport}")
    emulator = EMULATORS.get(facts.pci.vendor) or EMULATORS.get(facts.pci.subvendor)
    made_by = f" of {emulator}" if emulator else ": not from a known emulator"
    return DiskClass(Attachment.NVME, bool(emulator), f"PCI {facts.pci.ids}{made_by}")


def _scsi(facts: DiskFacts) -> DiskClass:
    driver = facts.driver or facts.proc_name or facts.pci.driver
    if facts.name.startswith("sr"):
        return DiskClass(Attachment.OPTICAL, False, "an optical drive")
    if re.search(r"/host\d+/session\d+/", facts.path):
        return DiskClass(
            Attachment.ISCSI, False, f"an iSCSI session of {driver or 'an unknown driver'}"
        )
    if re.search(r"/virtio\d+/host\d+/", facts.path) or "virtio_scsi" in (driver, facts.proc_name):
        return _virtio_scsi(facts)
    if facts.proc_name == STORVSC or driver == "hv_storvsc":
        fact = f"driver hv_storvsc, INQUIRY {facts.vendor or 'unknown'}"
        return DiskClass(Attachment.HYPERV, True, fact, "hv_storvsc")
    if "/usb" in facts.path:
        return DiskClass(Attachment.USB, True, "a USB port")
    kind = Attachment.ATA if re.search(r"/ata\d+/", facts.path) else Attachment.HBA
    return _controller(kind, driver, facts)


def _virtio_scsi(facts: DiskFacts) -> DiskClass:
    if facts.vendor.casefold() in DISK_VENDORS:
        fact = f"virtio_scsi, but INQUIRY says {facts.vendor}"
        return DiskClass(Attachment.LUN, False, fact, vendor=facts.vendor)
    fact = f"virtio_scsi, INQUIRY {facts.vendor or 'unknown'}"
    return DiskClass(Attachment.VIRTIO_SCSI, True, fact, vendor=facts.vendor)


def _controller(kind: Attachment, driver: str, facts: DiskFacts) -> DiskClass:
    emulator = EMULATORS.get(facts.pci.subvendor) or EMULATORS.get(facts.pci.vendor)
    if not emulator and facts.vendor.casefold() in VIRTUAL_VENDORS:
        emulator = f"{facts.vendor} by INQUIRY"
    if not emulator and facts.vendor == "ATA" and VIRTUAL_MODELS.match(facts.model):
        emulator = f"{facts.model} by INQUIRY"
    ids = f", PCI {facts.pci.ids}" if facts.pci.vendor else ""
    made_by = f" of {emulator}" if emulator else ""
    return DiskClass(kind, bool(emulator), f"driver {driver or 'unknown'}{ids}{made_by}", driver)


def _others(facts: DiskFacts) -> DiskClass:
    tests: tuple[tuple[Callable[[str], object], Attachment, bool, str], ...] = (
        (
            lambda path: re.search(r"/virtio\d+/block/", path),
            Attachment.VIRTIO_BLK,
            True,
            "virtio_blk",
        ),
        (lambda path: "/mmc_host/" in path, Attachment.MMC, False, "an MMC host"),
        (lambda path: "/vbd-" in path, Attachment.XEN, True, "a Xen block device"),
        (lambda path: "/devices/rbd/" in path, Attachment.RBD, False, "an image of Ceph"),
    )
    for test, kind, emulated, fact in tests:
        if test(facts.path):
            return DiskClass(kind, emulated, fact)
    return DiskClass(Attachment.OTHER, False, "unknown")
