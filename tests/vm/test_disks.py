# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of disk that QEMU can emulate, real queues, and the way back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm import disks
from tests.vm.daemon import CONFIGURATION, Tuned

KINDS = {
    "blk-one": ("virtio-blk", True),
    "blk-four": ("virtio-blk", True),
    "vscsi-one": ("virtio-scsi", True),
    "vscsi-four": ("virtio-scsi", True),
    "lun": ("LUN through virtio-scsi", False),
    "nvme-alone": ("NVMe", True),
    "nvme-head": ("NVMe multipath head", False),
    "sata-one": ("SATA", True),
    "sata-two": ("SATA", True),
    "usb": ("USB", True),
    "pv-one": ("SCSI HBA", True),
    "pv-two": ("SCSI HBA", True),
    "raid": ("SCSI HBA", True),
}

OPTIONS = """
role=guest
guest_virtio=kyber
guest_passthrough=mq-deadline
guest_nvme=deadline
guest_emulated=noop
"""
"""Something to change for every class, in old names and new, one from a module."""


@pytest.fixture(scope="module")
def layers(product: None) -> Iterator[dict[str, str]]:
    """Kernel names: of each disk by serial, and of what is made of them."""
    disks.run("sh", "-c", "cp -r $TUNED_VIRT_TOOLS/* / && ldconfig")
    disks.load()
    with contextlib.ExitStack() as stack:
        names = disks.by_serial()
        paths = stack.enter_context(disks.iscsi(Path("/run")))
        names["iscsi-a"], names["iscsi-b"] = paths
        disks.run("modprobe", "--all", "dm_mod", "dm_multipath", "dm_service_time", "raid1")
        table = " ".join(f"/dev/{name} 1" for name in paths)
        multipath = f"0 131072 multipath 0 0 1 1 service-time 0 2 1 {table}"
        create(stack, "mp", multipath, "--uuid", "mpath-test")
        create(stack, "lin", f"0 65536 linear /dev/{names['vscsi-one']} 0")
        names["mp"], names["lin"] = (
            os.path.realpath(f"/dev/mapper/{name}").rpartition("/")[2] for name in ("mp", "lin")
        )
        members = [f"/dev/{names[name]}" for name in ("sata-one", "sata-two")]
        disks.run(
            *("mdadm", "--create", "/dev/md0", "--run", "--level=1", "--raid-devices=2"),
            *("--metadata=1.2", "--assume-clean", *members),
        )
        stack.callback(disks.run, "mdadm", "--stop", "/dev/md0", check=False)
        names["md"] = "md0"
        physical = f"/dev/{names['pv-one']}"
        disks.run("vgcreate", "-y", "vg", physical)
        stack.callback(disks.run, "vgchange", "-an", "vg", check=False)
        disks.run("lvcreate", "-y", "-Wn", "-Zn", "-L", "64M", "-n", "lv", "vg")
        names["lv"] = os.path.realpath("/dev/mapper/vg-lv").rpartition("/")[2]
        yield names


def create(stack: contextlib.ExitStack, name: str, table: str, *more: str) -> None:
    """A device-mapper device, gone at the end."""
    disks.run("dmsetup", "create", name, *more, "--noudevsync", "--table", table)
    stack.callback(disks.run, "dmsetup", "remove", "--noudevsync", name, check=False)
    disks.run("dmsetup", "mknodes", name)


def queues() -> dict[str, str]:
    """Every file of every queue that a change of the scheduler resets, and the scheduler."""
    found = {}
    for disk in sorted(disks.BLOCK.iterdir()):
        for pattern in ("scheduler", "nr_requests", "iosched/*"):
            for file in sorted((disk / "queue").glob(pattern)):
                text = disks.read(file)
                found[str(file)] = disks.scheduler(disk.name) if pattern == "scheduler" else text
    return found


def switch(tuned: Tuned, options: str = OPTIONS) -> None:
    folder = CONFIGURATION / "own-disks"
    folder.mkdir(exist_ok=True)
    text = f"[main]\nsummary=disks\n[blk_elevator_virt]\n{options}"
    (folder / "tuned.conf").write_text(text)
    tuned.switch(folder.name)


def test_every_kind_is_classified(layers: dict[str, str]) -> None:
    seen = disks.disks()
    found = {name: (seen[layers[name]]["class"], seen[layers[name]]["emulated"]) for name in KINDS}
    assert found == KINDS
    made_of = {name: seen[layers[name]]["made_of"] for name in ("mp", "lin", "md", "lv")}
    assert made_of == {
        "mp": [layers["iscsi-a"], layers["iscsi-b"]],
        "lin": [layers["vscsi-one"]],
        "md": sorted([layers["sata-one"], layers["sata-two"]]),
        "lv": [layers["pv-one"]],
    }
    kinds = [seen[layers[name]]["class"] for name in ("iscsi-a", "mp", "lin", "md", "lv")]
    assert kinds == ["iSCSI", "dm-multipath", "device-mapper", "md", "device-mapper"]


def test_every_kind_is_set_and_the_way_back_is_identical(
    layers: dict[str, str], tuned: Tuned
) -> None:
    for name in ("sata-one", "blk-one", "pv-two"):
        queue = disks.BLOCK / layers[name] / "queue"
        (queue / "nr_requests").write_text("32")
        (queue / "iosched/read_expire").write_text("333")
    before = queues()
    switch(tuned)
    verified, lines = tuned.verify()
    assert verified, lines
    now = {name: disks.scheduler(layers[name]) for name in (*KINDS, "mp") if name != "nvme-head"}
    assert now == {
        **dict.fromkeys(("blk-one", "blk-four", "vscsi-one", "vscsi-four"), "kyber"),
        **dict.fromkeys(("lun", "mp", "nvme-alone"), "mq-deadline"),
        **dict.fromkeys(("sata-one", "sata-two", "usb", "pv-one", "pv-two", "raid"), "none"),
    }
    hidden = [name for name in os.listdir(disks.BLOCK) if name.startswith("nvme") and "c" in name]
    assert [disks.scheduler(name) for name in hidden] == ["mq-deadline"] * 2
    tuned.off()
    assert queues() == before


def test_kill9_then_restore(layers: dict[str, str], tuned: Tuned) -> None:
    before = queues()
    switch(tuned)
    assert queues() != before
    tuned.kill9()
    disks.run("tuned-virt", "restore")
    assert queues() == before


@pytest.mark.parametrize("name", ["blk-four", "nvme-alone"])
def test_a_pci_disk_removed_and_added_again_is_set_again(
    layers: dict[str, str], tuned: Tuned, name: str
) -> None:
    switch(tuned)
    wanted = disks.scheduler(layers[name])
    path = os.path.realpath(disks.BLOCK / layers[name])
    function = Path(*Path(path).parts[:5])
    (function / "remove").write_text("1")
    wait_for("gone", lambda: name not in disks.by_serial(), disks.SLOW)
    Path("/sys/bus/pci/rescan").write_text("1")
    wait_for("back", lambda: name in disks.by_serial(), disks.SLOW)
    layers[name] = disks.by_serial()[name]
    wait_for("set again", lambda: disks.scheduler(layers[name]) == wanted, disks.SLOW)
    tuned.off()
    assert disks.scheduler(layers[name]) != wanted


def test_a_scsi_disk_removed_and_added_again_is_set_again(
    layers: dict[str, str], tuned: Tuned
) -> None:
    switch(tuned)
    path = os.path.realpath(disks.BLOCK / layers["lun"])
    host = next(part for part in Path(path).parts if part.startswith("host"))
    (disks.BLOCK / layers["lun"] / "device/delete").write_text("1")
    wait_for("gone", lambda: "lun" not in disks.by_serial(), disks.SLOW)
    Path(f"/sys/class/scsi_host/{host}/scan").write_text("- - -")
    wait_for("back", lambda: "lun" in disks.by_serial(), disks.SLOW)
    layers["lun"] = disks.by_serial()["lun"]
    wait_for("set", lambda: disks.scheduler(layers["lun"]) == "mq-deadline", disks.SLOW)
    tuned.off()
    assert disks.scheduler(layers["lun"]) == "none"
