# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of disk that QEMU can emulate, real queues, and the way back."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.sandbox import wait_for
from tests.vm import disks
from tests.vm.daemon import CONFIGURATION, Tuned
from tests.vm.monitor import Monitor
from tuned_virt.plugins.blk_elevator_virt import state

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
    "sata-three": ("SATA", True),
    "usb": ("USB", True),
    "pv-one": ("SCSI HBA", True),
    "pv-two": ("SCSI HBA", True),
    "raid": ("SCSI HBA", True),
    "lsi-one": ("SCSI HBA", True),
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
def layers(emulated: None) -> Iterator[dict[str, str]]:
    """Kernel names: of each disk by serial, and of what is made of them."""
    with contextlib.ExitStack() as stack:
        names = disks.by_serial()
        paths = stack.enter_context(disks.iscsi(Path("/run")))
        names["iscsi-a"], names["iscsi-b"] = paths
        disks.run("modprobe", "--all", "dm_mod", "dm_multipath", "dm_service_time", "raid1")
        table = " ".join(f"/dev/{name} 1" for name in paths)
        multipath = f"0 131072 multipath 0 0 1 1 service-time 0 2 1 {table}"
        names["mp"] = create(stack, "mp", multipath, "--uuid", "mpath-test")
        names["lin"] = create(stack, "lin", f"0 65536 linear /dev/{names['vscsi-one']} 0")
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
        names["lv"] = disks.mapped("vg-lv")
        yield names


@pytest.fixture(scope="module")
def monitor() -> Iterator[Monitor]:
    opened = Monitor()
    yield opened
    opened.close()


@pytest.fixture
def tuned(daemon: Tuned) -> Iterator[Tuned]:
    """A running TuneD without a profile; the whole kernel's state, a minute, is not looked at."""
    if not daemon.running:
        daemon.forget_profile()
        daemon.start()
    yield daemon
    if daemon.running:
        daemon.off()


def create(stack: contextlib.ExitStack, name: str, table: str, *more: str) -> str:
    """A device-mapper device, gone at the end; the kernel's name of it."""
    disks.run("dmsetup", "create", name, *more, "--noudevsync", "--table", table)
    stack.callback(disks.run, "dmsetup", "remove", "--noudevsync", name, check=False)
    disks.run("dmsetup", "mknodes", name)
    return disks.mapped(name)


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
        **dict.fromkeys(("sata-one", "sata-two", "sata-three", "usb"), "none"),
        **dict.fromkeys(("pv-one", "pv-two", "raid", "lsi-one"), "none"),
    }
    assert [disks.scheduler(name) for name in hidden_paths()] == ["mq-deadline"] * 2
    tuned.off()
    assert queues() == before


RULES = Path("/etc/udev/rules.d/61-tuned-virt-disks.rules")


def test_udev_sets_by_our_rules_what_the_plugin_sets(layers: dict[str, str], tuned: Tuned) -> None:
    """`udevadm test` goes through the rules of `disks --udev-rule` for each kind of disk."""
    before = {name: disks.scheduler(layers[name]) for name in layers}
    switch(tuned)
    wanted = {name: disks.scheduler(layers[name]) for name in (*KINDS, "mp", "iscsi-a")}
    RULES.parent.mkdir(parents=True, exist_ok=True)
    disks.run("tuned-virt", "disks", "--udev-rule", str(RULES))
    tuned.off()
    try:
        for name, scheduler in wanted.items():
            action = "change" if name == "mp" else "add"
            path = f"/sys/block/{layers[name]}"
            said = disks.run("udevadm", "test", f"--action={action}", path)
            assert disks.scheduler(layers[name]) == scheduler, f"{name}\n{said}"
            if before[name] != scheduler:
                assert RULES.name in said, f"{name}\n{said}"
    finally:
        RULES.unlink()
        for name, scheduler in before.items():
            if scheduler and disks.scheduler(layers[name]) != scheduler:
                (disks.BLOCK / layers[name] / "queue/scheduler").write_text(scheduler)


def test_an_administrators_rule_with_run_is_left_and_named(
    layers: dict[str, str], tuned: Tuned
) -> None:
    """A real udevd has carried the rule out; its conditions are those of the disk."""
    name = layers["raid"]
    rule = RULES.with_name("99-own.rules")
    rule.parent.mkdir(parents=True, exist_ok=True)
    rule.write_text(
        'ACTION=="add|change", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", DRIVERS=="megaraid_sas", '
        "RUN+=\"/bin/sh -c 'echo kyber > /sys/block/%k/queue/scheduler'\"\n"
    )
    try:
        with disks.udevd():
            disks.run("udevadm", "trigger", "--action=change", f"/sys/block/{name}")
            wait_for("the rule", lambda: disks.scheduler(name) == "kyber", disks.SLOW)
            switch(tuned)
        assert disks.scheduler(name) == "kyber"
        assert disks.scheduler(layers["lsi-one"]) == "none"
        place = f"which the udev rule {rule}:1 sets: remove one"
        assert disks.disks()[name]["remark"] == f"left at kyber, {place}"
        verified, lines = tuned.verify()
        assert verified, lines
        assert f"{name}: left at kyber, {place}" in lines
        tuned.off()
        assert disks.scheduler(name) == "kyber"
    finally:
        rule.unlink()
        (disks.BLOCK / name / "queue/scheduler").write_text("mq-deadline")


def test_kill9_and_then_off_restores(layers: dict[str, str], tuned: Tuned) -> None:
    before = queues()
    switch(tuned)
    assert queues() != before
    tuned.kill9()
    tuned.start()
    tuned.off()
    assert queues() == before


def comes_and_goes(
    layers: dict[str, str], name: str, remove: Callable[[], object], add: Callable[[], object]
) -> None:
    """Take a disk away, and give it back; its name may be new."""
    remove()
    wait_for(f"{name} is gone", lambda: name not in disks.by_serial(), disks.SLOW)
    add()
    wait_for(f"{name} is back", lambda: name in disks.by_serial(), disks.SLOW)
    layers[name] = disks.by_serial()[name]


def set_again(names: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    wait_for(
        f"set again: {wanted}",
        lambda: {name: disks.scheduler(names[name]) for name in wanted} == wanted,
        disks.SLOW,
    )


def waiting_reader(node: str) -> subprocess.Popen[bytes]:
    """A process that reads a block from a device, once it waits for it (read(2) of file 0)."""
    reader = subprocess.Popen(["dd", f"if={node}", "of=/dev/null", "count=1", "iflag=direct"])
    call = Path(f"/proc/{reader.pid}/syscall")
    wait_for("a read that waits", lambda: disks.read(call).startswith("0 0x0 "), disks.SLOW)
    return reader


def unplug(monitor: Monitor, device: str) -> None:
    assert monitor.type(f"device_del {device}") == ""


HELD = re.compile("Duplicate|Permission conflict")
"""QEMU's words while the device that had the id is still there, or holds its disk."""


def plug(monitor: Monitor, device: str) -> None:
    """device_add, once QEMU has let go of the device that had this id."""

    def plugged() -> bool:
        said = monitor.type(f"device_add {disks.DEVICES[device]}")
        assert not said or HELD.search(said), said
        return not said

    wait_for(f"{device} is plugged in", plugged, disks.SLOW)


UNPLUGGED = ("blk-one", "nvme-alone", "vscsi-four", "lun", "pv-two", "usb")
"""By QEMU: PCI functions of two drivers, disks of two SCSI hosts' drivers, USB."""


def test_disks_removed_and_added_again_are_set_again(
    layers: dict[str, str], tuned: Tuned, monitor: Monitor
) -> None:
    """Each kind goes and comes: by QEMU, and SATA, which QEMU does not unplug, by the kernel."""
    switch(tuned)
    wanted = {name: disks.scheduler(layers[name]) for name in (*UNPLUGGED, "sata-three")}
    for name in UNPLUGGED:
        remove, add = (functools.partial(do, monitor, name) for do in (unplug, plug))
        comes_and_goes(layers, name, remove, add)
    device = Path(os.path.realpath(disks.BLOCK / layers["sata-three"] / "device"))
    host = next(part for part in device.parts if part.startswith("host"))
    comes_and_goes(
        *(layers, "sata-three", lambda: (device / "delete").write_text("1")),
        lambda: Path(f"/sys/class/scsi_host/{host}/scan").write_text("- - -"),
    )
    set_again(layers, wanted)
    verified, lines = tuned.verify()
    assert verified, lines
    tuned.off()
    defaults = {name: disks.scheduler(layers[name]) for name in wanted}
    assert not set(defaults.items()) & set(wanted.items())


GUARDED = f"""{OPTIONS}
[guard]
type=crash_guard
priority=-100
files=/sys/block/*/queue/read_ahead_kb
[disk]
readahead=>4096
"""


def values(name: str) -> tuple[str, str]:
    return disks.scheduler(name), disks.read(disks.BLOCK / name / "queue/read_ahead_kb")


def test_disks_that_have_exchanged_their_names_keep_what_they_came_with(
    layers: dict[str, str], tuned: Tuned, monitor: Monitor
) -> None:
    """TuneD is killed; a USB disk and one of virtio-scsi go, and come in the order that gives each
    the other's name (as DietPi 4499 and zbx-smartctl 73 tell it)."""
    pair = ("usb", "vscsi-four")
    for name in pair:
        (disks.BLOCK / layers[name] / "queue/scheduler").write_text("kyber")
        (disks.BLOCK / layers[name] / "queue/read_ahead_kb").write_text("776")
    stays = layers["lun"]
    before = values(stays)
    switch(tuned, GUARDED)
    assert values(stays) != before
    tuned.kill9()
    old = sorted(layers[name] for name in pair)
    for name in pair:
        unplug(monitor, name)
        wait_for("gone", functools.partial(lambda one: one not in disks.by_serial(), name))
    first = "usb" if old[0] == layers["vscsi-four"] else "vscsi-four"
    second = next(name for name in pair if name != first)
    for name in (first, second):
        plug(monitor, name)
        wait_for("back", functools.partial(lambda one: one in disks.by_serial(), name), disks.SLOW)
        layers[name] = disks.by_serial()[name]
    assert [layers[first], layers[second]] == old
    fresh = {name: values(layers[name]) for name in pair}
    assert "776" not in {read_ahead for _, read_ahead in fresh.values()}
    tuned.start()
    verified, lines = tuned.verify()
    assert verified, lines
    for name in old:
        assert f"{name} is another device now: it was removed and added since" in lines
    tuned.off()
    assert {name: values(layers[name]) for name in pair} == fresh
    assert values(stays) == before


def test_an_hba_goes_and_comes_with_its_disk(
    layers: dict[str, str], tuned: Tuned, monitor: Monitor
) -> None:
    """The driver comes last, as QEMU plugs in the controller before its disk."""
    switch(tuned)
    wanted = disks.scheduler(layers["raid"])

    def add() -> None:
        disks.run("modprobe", "--remove", "megaraid_sas")
        plug(monitor, "raid")
        plug(monitor, "raid-disk")
        disks.run("modprobe", "megaraid_sas")

    comes_and_goes(layers, "raid", lambda: unplug(monitor, "raid"), add)
    set_again(layers, {"raid": wanted})
    tuned.off()
    assert disks.scheduler(layers["raid"]) != wanted


def hidden_paths() -> list[str]:
    """Names of the paths of NVMe multipath heads."""
    return [name for name in sorted(os.listdir(disks.BLOCK)) if state.HIDDEN.fullmatch(name)]


def test_a_path_of_an_nvme_head_goes_and_comes(
    layers: dict[str, str], tuned: Tuned, monitor: Monitor
) -> None:
    """No event of block devices tells of it: these disks are hidden."""
    before = {name: disks.scheduler(name) for name in hidden_paths()}
    assert set(before.values()) == {"none"}
    switch(tuned)
    assert {disks.scheduler(name) for name in before} == {"mq-deadline"}
    unplug(monitor, "path-two")
    wait_for("one path", lambda: len(hidden_paths()) == 1, disks.SLOW)
    (left,) = hidden_paths()
    assert disks.disks()[layers["nvme-head"]]["made_of"] == [left]
    assert disks.scheduler(left) == "mq-deadline"
    verified, lines = tuned.verify()
    assert verified, lines
    head = f"/dev/{layers['nvme-head']}"
    disks.run("dd", f"if={head}", "of=/dev/null", "count=1", "iflag=direct")
    plug(monitor, "path-two")
    wait_for("two paths", lambda: len(hidden_paths()) == 2, disks.SLOW)
    set_again({name: name for name in hidden_paths()}, dict.fromkeys(hidden_paths(), "mq-deadline"))
    verified, lines = tuned.verify()
    assert verified, lines
    tuned.off()
    assert {disks.scheduler(name) for name in hidden_paths()} == {"none"}


def test_a_suspended_device_waits_for_its_resume(layers: dict[str, str], tuned: Tuned) -> None:
    disks.run("dmsetup", "suspend", "--noflush", "mp")
    reader = waiting_reader("/dev/mapper/mp")
    try:
        before = disks.scheduler(layers["mp"])
        switch(tuned, OPTIONS.replace("passthrough=mq-deadline", "passthrough=kyber"))
        verified, lines = tuned.verify()
        assert verified, lines
        assert f"{layers['mp']}: not set to kyber now: the device is suspended" in lines
        assert disks.scheduler(layers["mp"]) == before
        assert disks.scheduler(layers["lun"]) == "kyber"
    finally:
        disks.run("dmsetup", "resume", "mp")
    assert reader.wait(disks.SLOW) == 0
    set_again(layers, {"mp": "kyber"})
    tuned.off()
    assert disks.scheduler(layers["mp"]) == before


def test_a_queue_that_never_drains_holds_up_nobody(layers: dict[str, str], tuned: Tuned) -> None:
    """All paths dead and queue_if_no_path: its requests wait, and a scheduler's write with them."""
    paths = [layers["iscsi-a"], layers["iscsi-b"]]
    numbers = [disks.read(disks.BLOCK / name / "dev") for name in paths]
    disks.run("dmsetup", "message", "mp", "0", "queue_if_no_path")
    for number in numbers:
        disks.run("dmsetup", "message", "mp", "0", f"fail_path {number}")
    reader = waiting_reader("/dev/mapper/mp")
    try:
        switch(tuned, OPTIONS.replace("passthrough=mq-deadline", "passthrough=kyber"))
        verified, lines = tuned.verify()
        assert not verified
        assert "is not draining" in lines or "none completed" in lines, lines
        assert disks.scheduler(layers["lun"]) == "kyber"
    finally:
        for number in numbers:
            disks.run("dmsetup", "message", "mp", "0", f"reinstate_path {number}")
    assert reader.wait(disks.SLOW) == 0
    tuned.off()
    wait_for("as it was", lambda: disks.scheduler(layers["mp"]) == "mq-deadline", disks.SLOW)


def test_a_scheduler_whose_module_is_missing(layers: dict[str, str], tuned: Tuned) -> None:
    modules = f"/lib/modules/{os.uname().release}/modules.dep"
    lines = disks.read(Path(modules)).splitlines()
    without = Path("/run/modules.dep")
    without.write_text("".join(f"{line}\n" for line in lines if "/bfq.ko" not in line))
    before = queues()
    disks.run("mount", "--bind", str(without), modules)
    try:
        switch(tuned, "role=guest\nguest_virtio=bfq\nguest_emulated=none\n")
        verified, said = tuned.verify()
        assert not verified
        assert "this kernel has no bfq, not even as a module" in said
        assert disks.scheduler(layers["blk-one"]) == "mq-deadline"
        assert disks.scheduler(layers["usb"]) == "none"
        tuned.off()
    finally:
        disks.run("umount", modules)
    assert queues() == before


def test_iscsi_and_multipath_come_and_go(layers: dict[str, str], tuned: Tuned) -> None:
    """Last: the layers are not made again as they were."""
    switch(tuned, OPTIONS.replace("passthrough=mq-deadline", "passthrough=kyber"))
    paths = ("iscsi-a", "iscsi-b")
    set_again(layers, {"mp": "kyber"})
    assert {disks.scheduler(layers[name]) for name in paths} == {"mq-deadline"}
    disks.run("dmsetup", "remove", "--noudevsync", "mp")
    set_again(layers, dict.fromkeys(paths, "kyber"))
    before = set(os.listdir(disks.BLOCK))
    disks.run("iscsiadm", "-m", "node", "--logout")
    wait_for("gone", lambda: not {layers[name] for name in paths} & set(os.listdir(disks.BLOCK)))
    left = set(os.listdir(disks.BLOCK))
    assert len(before - left) == 2
    disks.run("iscsiadm", "-m", "node", "--login")
    wait_for("back", lambda: len(set(os.listdir(disks.BLOCK)) - left) == 2, disks.SLOW)
    back = sorted(set(os.listdir(disks.BLOCK)) - left)
    set_again(dict(zip(paths, back)), dict.fromkeys(paths, "kyber"))
