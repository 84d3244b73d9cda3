# SPDX-License-Identifier: GPL-2.0-or-later
"""The booted machine's disks: one of each kind that QEMU can emulate, found again by their serials.

`qemu_options` is for boot.py, the rest for the tests inside.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.sandbox import wait_for

MIB = 1 << 20
BLOCK = Path("/sys/block")

SLOW = 90
"""Seconds that a kernel under emulation may take for what takes one on a machine."""

MODULES = (
    *("virtio_blk", "virtio_scsi", "sd_mod", "ahci", "nvme", "megaraid_sas", "vmw_pvscsi"),
    *("xhci_pci", "usb_storage", "uas", "sym53c8xx"),
)
"""Drivers of the disks below: nobody loads them by itself in there."""

QEMU = """
-device pcie-root-port,id=port1,chassis=1
-device pcie-root-port,id=port2,chassis=2
-device pcie-root-port,id=port3,chassis=3
-device pcie-root-port,id=port4,chassis=4
-blockdev null-co,node-name=n1,size=67108864,read-zeroes=on
-device virtio-blk-pci,id=blk-one,bus=port1,drive=n1,serial=blk-one,num-queues=1
-blockdev null-co,node-name=n2,size=67108864,read-zeroes=on
-device virtio-blk-pci,drive=n2,serial=blk-four,num-queues=4
-device virtio-scsi-pci,id=vs1,num_queues=1
-blockdev null-co,node-name=n3,size=67108864,read-zeroes=on
-device scsi-hd,bus=vs1.0,drive=n3,serial=vscsi-one
-device virtio-scsi-pci,id=vs4,num_queues=4
-blockdev null-co,node-name=n4,size=67108864,read-zeroes=on
-device scsi-hd,id=vscsi-four,bus=vs4.0,drive=n4,serial=vscsi-four
-blockdev null-co,node-name=n5,size=67108864,read-zeroes=on
-device scsi-hd,id=lun,bus=vs4.0,lun=1,drive=n5,serial=lun,vendor=DELL
-blockdev null-co,node-name=n6,size=67108864,read-zeroes=on
-device nvme,id=nvme-alone,bus=port2,drive=n6,serial=nvme-alone
-device nvme-subsys,id=sub,nqn=many
-device nvme,id=path-one,serial=nvme-many,subsys=sub
-device nvme,id=path-two,bus=port3,serial=nvme-many,subsys=sub
-blockdev null-co,node-name=n7,size=67108864,read-zeroes=on
-device nvme-ns,drive=n7,shared=on
-device ich9-ahci,id=sata
-blockdev file,node-name=f8,filename={folder}/sata1
-device ide-hd,bus=sata.0,drive=f8,serial=sata-one
-blockdev file,node-name=f9,filename={folder}/sata2
-device ide-hd,bus=sata.1,drive=f9,serial=sata-two
-blockdev null-co,node-name=n14,size=67108864,read-zeroes=on
-device ide-hd,bus=sata.2,drive=n14,serial=sata-three
-device qemu-xhci,id=xhci
-blockdev null-co,node-name=n10,size=67108864,read-zeroes=on
-device usb-storage,id=usb,bus=xhci.0,drive=n10,serial=usb
-blockdev file,node-name=f11,filename={folder}/pv1
-device pvscsi,id=pv
-device scsi-hd,bus=pv.0,drive=f11,serial=pv-one
-blockdev file,node-name=f12,filename={folder}/pv2
-device scsi-hd,id=pv-two,bus=pv.0,scsi-id=1,drive=f12,serial=pv-two,vendor=LSI
-device megasas,id=raid,bus=port4
-blockdev null-co,node-name=n13,size=67108864,read-zeroes=on
-device scsi-hd,id=raid-disk,bus=raid.0,drive=n13,serial=raid
-device lsi53c895a,id=lsi
-blockdev null-co,node-name=n15,size=67108864,read-zeroes=on
-device scsi-hd,bus=lsi.0,drive=n15,serial=lsi-one
"""
"""Null devices take writes and forget them; what LVM and md are made of has files."""

DEVICES = {
    found[1]: found[0]
    for line in QEMU.splitlines()
    if (found := re.search(r"\S+,id=([^,]+)\S*$", line)) and line.startswith("-device")
}
"""By id, what QEMU's device_add takes."""

FILES = {"sata1": 128, "sata2": 128, "pv1": 256, "pv2": 128}
"""Sparse files of that many MiB."""


def qemu_options(folder: Path) -> list[str]:
    """Options of QEMU for the disks, whose files are made in a folder."""
    for name, mib in FILES.items():
        with open(folder / name, "wb") as file:
            file.truncate(mib * MIB)
    return QEMU.format(folder=folder).split()


def run(*command: str, check: bool = True) -> str:
    """What a command prints."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def read(path: Path) -> str:
    """A file's text, "" where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def serial(name: str) -> str:
    """A disk's serial number: its own file, its NVMe controller's, or SCSI's page 0x80."""
    device = BLOCK / name / "device"
    for file in (BLOCK / name / "serial", device / "serial"):
        if text := read(file):
            return text
    if "/usb" in os.path.realpath(BLOCK / name):
        return "usb"  # which gives no page 0x80
    page = re.search(r"[a-z][a-z0-9-]+$", read(device / "vpd_pg80"))
    return page[0] if page else ""


def by_serial() -> dict[str, str]:
    """Kernel names by serial; of a multipath head its name is what counts."""
    found = {serial(name): name for name in sorted(os.listdir(BLOCK)) if "c" not in name[4:]}
    found.pop("", None)
    for name in os.listdir(BLOCK):
        if "nvme-subsystem" in os.path.realpath(BLOCK / name):
            found["nvme-head"] = name
    return found


EMULATED = (
    *("blk-one", "blk-four", "vscsi-one", "vscsi-four", "lun", "nvme-alone", "nvme-head"),
    *("sata-one", "sata-two", "sata-three", "usb", "pv-one", "pv-two", "raid", "lsi-one"),
)


def unpack_tools() -> None:
    """Lay LVM, open-iscsi and their like over the machine's root.

    A library is replaced, not written over: a running TuneD that has it mapped would crash.
    """
    run("sh", "-c", "cp -r --remove-destination $TUNED_VIRT_TOOLS/* / && ldconfig")


def load() -> None:
    """Load the drivers, and wait until every disk is there."""
    run("modprobe", "--all", *MODULES)
    wait_for("every disk", lambda: set(EMULATED) <= by_serial().keys(), SLOW)


def mapped(name: str) -> str:
    """The kernel's name of a device-mapper device: nodes are udev's, which does not run."""
    found = [file.parts[3] for file in BLOCK.glob("dm-*/dm/name") if read(file) == name]
    assert len(found) == 1, (name, found)
    return found[0]


def scheduler(name: str) -> str:
    """A disk's active scheduler."""
    return re.sub(r".*\[(.+)].*", r"\1", read(BLOCK / name / "queue/scheduler"))


def disks() -> dict[str, dict[str, object]]:
    """What `tuned-virt disks --json` says, by name."""
    content = json.loads(run("tuned-virt", "disks", "--json", check=False))
    return {disk["disk"]: disk for disk in content["disks"]}


UDEV_CONTROL = Path("/run/udev/control")


@contextlib.contextmanager
def udevd() -> Iterator[None]:
    """A real udevd, with this machine's rules; only events from now on are handled."""
    run("/lib/systemd/systemd-udevd", "--daemon")
    try:
        yield
    finally:
        run("udevadm", "control", "--exit")
        UDEV_CONTROL.unlink(missing_ok=True)  # while it is there, LVM waits for udev's word


@contextlib.contextmanager
def iscsi(folder: Path) -> Iterator[list[str]]:
    """Two paths to one LUN over loopback, tgt to open-iscsi; the disks' names."""
    image = folder / "lun"
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    names = Path("/etc/iscsi/initiatorname.iscsi")
    names.parent.mkdir(exist_ok=True)
    names.write_text("InitiatorName=iqn.2020-01.test:initiator\n")
    daemons = [subprocess.Popen(["tgtd", "-f"]), subprocess.Popen(["iscsid", "-f"])]
    admin = functools.partial(run, "tgtadm", "--lld", "iscsi", "--op")
    target = ["--mode", "target", "--tid", "1"]
    wait_for("tgtd", lambda: "State" in admin("show", "--mode", "sys", check=False), SLOW)
    admin("new", *target, "-T", "iqn.2020-01.test:disk")
    lun = ["--mode", "logicalunit", "--tid", "1", "--lun", "1"]
    admin("new", *lun, "-b", str(image))
    admin("bind", *target, "-I", "ALL")
    before = set(os.listdir(BLOCK))
    for address in ("127.0.0.1", "127.0.0.2"):
        run("iscsiadm", "-m", "discovery", "-t", "st", "-p", address)
    run("iscsiadm", "-m", "node", "--login")
    wait_for("iSCSI disks", lambda: len(set(os.listdir(BLOCK)) - before) == 2, SLOW)
    try:
        yield sorted(set(os.listdir(BLOCK)) - before)
    finally:
        run("iscsiadm", "-m", "node", "--logout", check=False)
        for daemon in daemons:
            daemon.kill()
            daemon.wait()
