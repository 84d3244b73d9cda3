# SPDX-License-Identifier: GPL-2.0-or-later
"""The udev rules that we write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.unit.blockdev import AHCI, LOOP, SQ, VIRTIO, FakeDisks, hba
from tuned_virt.plugins.blk_elevator_virt import DiskState, DisksTuner, Verdict, judge, parse
from tuned_virt.plugins.blk_elevator_virt.udev_rules import OURS, rule_file


@pytest.fixture
def fs(tmp_path: Path) -> FakeDisks:
    return FakeDisks(tmp_path / "root")


def made(
    fs: FakeDisks,
    options: Mapping[str, str],
    users: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    properties: Mapping[str, dict[str, str]] = MappingProxyType({}),
    release: str = "6.1.0",
) -> list[str]:
    asked = parse(options)
    state = DisksTuner().read(fs, asked, {})
    state = DiskState(state.disks, users=users)
    verdicts: list[Verdict] = judge(asked, state, {})
    text = rule_file(verdicts, lambda name: properties.get(name, {}), release)
    assert text.startswith(OURS)
    return text.splitlines()[2:]


HEAD = 'ACTION=="add", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk"'


def test_classes_of_a_guest(fs: FakeDisks) -> None:
    fs.add("vda", f"{VIRTIO}vda", queues=4)
    fs.add("vdb", f"{VIRTIO}vdb")
    fs.add("sda", f"{AHCI}sda", device__vendor="ATA")
    hba(fs, "sdb", 1)
    options = {"role": "guest", "guest_virtio": "queues", "guest_passthrough": "bfq"}
    assert made(fs, options) == [
        "# SATA: guest_passthrough=bfq",
        f'{HEAD}, DEVPATH=="*/ata[0-9]*/host[0-9]*/*", ATTR{{queue/scheduler}}="bfq"',
        "# SCSI HBA: guest_passthrough=bfq",
        f'{HEAD}, KERNEL=="sd*", DRIVERS=="megaraid_sas", ATTR{{queue/scheduler}}="bfq"',
        "# virtio-blk: guest_virtio=queues, several queues",
        f'{HEAD}, DRIVERS=="virtio_blk", TEST=="mq/1", ATTR{{queue/scheduler}}="none"',
        "# virtio-blk: guest_virtio=queues, one queue",
        f'{HEAD}, DRIVERS=="virtio_blk", TEST!="mq/1", ATTR{{queue/scheduler}}="mq-deadline"',
    ]


def test_disks_that_back_guests_are_named_by_what_lasts(fs: FakeDisks) -> None:
    hba(fs, "sda", 1)
    hba(fs, "sdb", 2)
    fs.add("dm-0", f"{LOOP}dm-0", dm__uuid="mpath-x", dm__suspended="0")
    users = {"sda": ("web\n",), "dm-0": ("db",)}
    properties = {
        "sda": {"ID_SERIAL": 'a "b"; $c', "ID_PATH": "pci-1"},
        "dm-0": {"DM_UUID": "mpath-3600", "ID_SERIAL": "x"},
    }
    assert made(fs, {"role": "host", "host_backing": "mq-deadline"}, users, properties) == [
        "# dm-0: dm-multipath, backs db: host_backing=mq-deadline",
        f'{HEAD.replace("add", "add|change")}, ENV{{DM_UUID}}=="mpath-3600",'
        ' ATTR{queue/scheduler}="mq-deadline"',
        "# sda: SCSI HBA, backs web?: host_backing=mq-deadline",
        f'{HEAD}, ENV{{ID_SERIAL}}=="a??b????c", ATTR{{queue/scheduler}}="mq-deadline"',
    ]


def test_the_driver_is_matched_and_not_what_the_scsi_host_calls_itself(fs: FakeDisks) -> None:
    """SAS2008 cards: the SCSI host says mpt2sas, the driver that udev knows is mpt3sas."""
    hba(fs, "sda", 1, "mpt2sas")
    above = "/sys" + os.path.realpath(f"{fs.root}/sys/block/sda").split("/sys")[1].split("/host")[0]
    fs.link_to(f"{above}/driver", "/sys/bus/pci/drivers/mpt3sas")
    assert made(fs, {"role": "guest", "guest_passthrough": "bfq"}) == [
        "# SCSI HBA: guest_passthrough=bfq",
        f'{HEAD}, KERNEL=="sd*", DRIVERS=="mpt3sas", ATTR{{queue/scheduler}}="bfq"',
    ]


def test_a_disk_that_its_class_does_not_tell_from_another_is_named_alone(fs: FakeDisks) -> None:
    """SATA of QEMU beside a controller passed through, which is kept."""
    fs.add("sda", f"{AHCI}sda", device__vendor="ATA")
    fs.controller("sda", vendor="0x8086", device="0x2922", subsystem_vendor="0x1af4")
    fs.add("sdb", f"{AHCI}sdb".replace("ata1/host0", "ata2/host1"), device__vendor="ATA")
    options = {"role": "guest", "guest_emulated": "bfq", "guest_passthrough": "keep"}
    assert made(fs, options, properties={"sda": {"ID_SERIAL": "QEMU_1"}}) == [
        "# sda: emulated SATA: guest_emulated=bfq",
        f'{HEAD}, ENV{{ID_SERIAL}}=="QEMU_1", ATTR{{queue/scheduler}}="bfq"',
    ]


def test_virtio_scsi_by_its_vendor(fs: FakeDisks) -> None:
    for number, vendor in enumerate(("SCW", "DELL", "")):
        name = f"sd{'abc'[number]}"
        path = f"{{pci}}/virtio{number}/host{number}/t/{number}:0:0:0/block/{name}"
        fs.add(name, path, device__vendor=f"{vendor:8}")
    options = {"role": "guest", "guest_virtio": "bfq", "guest_passthrough": "kyber"}
    head = f'{HEAD}, DEVPATH=="*/virtio[0-9]*/host[0-9]*/*", ATTRS{{vendor}}=='
    assert [line for line in made(fs, options) if not line.startswith("#")] == [
        f'{head}"SCW", ATTR{{queue/scheduler}}="bfq"',
        f'{head}"DELL", ATTR{{queue/scheduler}}="kyber"',
        f'{head}"", ATTR{{queue/scheduler}}="bfq"',
    ]


def test_hidden_paths_are_not_for_udev(fs: FakeDisks) -> None:
    for path in ("nvme0c0n1", "nvme0c1n1"):
        fs.add(path, f"{{pci}}/nvme/nvme0/{path}")
    assert made(fs, {"role": "host", "host_nvme": "kyber"}) == [
        f"# {path}: set by TuneD only: udev has no events for a multipath head's paths"
        for path in ("nvme0c0n1", "nvme0c1n1")
    ]


def test_nothing_to_set(fs: FakeDisks) -> None:
    assert made(fs, {"role": "host", "host_other": "bfq"}) == [
        "# No disk of this machine needs a rule."
    ]


def test_elevator_on_a_kernel_that_knows_it(fs: FakeDisks) -> None:
    fs.add("loop0", f"{LOOP}loop0", offered=SQ, active="cfq")
    options = {"role": "host", "host_other": "none"}
    old = made(fs, options, release="4.15.0-20")
    assert old[-2:] == ["#     [bootloader]", "#     cmdline_disks=+elevator=noop"]
    assert "elevator" not in "".join(made(fs, options, release="5.0.1"))
