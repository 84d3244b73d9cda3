# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole product at once: a host with four nodes, its disks and its guests, and the way back.

virtual-host-plus with pools on all nodes; eight guests on disks of five kinds, which start in
batches, stop, migrate and grow; TuneD is killed, and off in the end.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid as uuids
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from tests import libvirtd as private_libvirtd
from tests import loopdev
from tests.faults.world import NOT_OURS
from tests.matrix import state
from tests.sandbox import REPO, wait_for
from tests.vm import disks, program
from tests.vm.daemon import CONFIGURATION, Tuned
from tests.vm.kernel import NODES, ksm
from tests.vm.libvirtd import KNOWN, Libvirtd
from tests.vm.test_disks_guests import KEY
from tests.vm.test_pinning import EVERYWHERE, NODE_CPUS, masks
from tuned_virt.core.active_profile import RECORD

SLOW_SECONDS = 300

PROFILE = "virtual-host-plus"
SETTINGS = """
disk_role=host
disk_host_backing=bfq
disk_host_nvme=kyber
disk_host_other=mq-deadline
hugepages_2M=0:8,1:6,2:4,3:2
hugepages_mount_2M=/dev/hugepages
thp=madvise
ksm_mode=auto
vm_policy=node
vm_overcommit=4
vm_running=place
vm_memory_soft_limit=1000%
vm_cpu_shares=50
vm_blkio_weight=300
"""
POOLS = ["8", "6", "4", "2"]
LIMITS = {"cpu.weight": "50", "memory.high": str(320 << 20), "io.bfq.weight": "default 300"}
"""Of a guest of 32 MiB, in the files of its control group."""

MIB = 32
GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{mib}</memory>
  <vcpu current='1'>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <loader readonly='yes' type='rom'>{rom}</loader>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {disk}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
"""

DISK = """
<disk type='block' device='disk'>
  <driver name='qemu' type='raw'/><source dev='{path}'/><target dev='vda' bus='virtio'/>
</disk>
"""

UNSET = {"cpuset.cpus": EVERYWHERE, "cpuset.mems": "0-3"}
"""What an empty file means; libvirt itself writes the nodes where it plugs in a vCPU."""

FIRST = ("on-virtio", "on-scsi")
SECOND = ("on-nvme", "on-loop", "on-crypt", "on-queues")
THIRD = ("grows", "moves")
ALL = (*FIRST, *SECOND, *THIRD)

FOLDERS = (
    *("/etc/tuned", "/etc/libvirt", "/etc/modprobe.d", "/etc/sysctl.d", "/etc/default"),
    *("/etc/systemd", "/etc/udev", "/run/systemd", "/run/udev", "/run/tuned-virt"),
)
"""Where the product writes, or might."""

REMAINING = ("active_profile", "profile_mode", "post_loaded_profile", Path(RECORD).name, *NOT_OURS)
"""Of TuneD its choice of a profile; of ours what is left for `disable`, and a lock."""

CRYPT = "whole"


def files() -> Iterator[tuple[str, str]]:
    """Every file below FOLDERS, by path."""
    for top in FOLDERS:
        for folder, _, names in os.walk(top):
            for name in {*names} - {*REMAINING}:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    yield f"file {path}", hashlib.sha256(path.read_bytes()).hexdigest()


def policies() -> Iterator[tuple[str, str]]:
    """Every process's memory policies (proc(5), numa_maps)."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
            found = sorted({line.split()[1] for line in lines})
            if found:
                yield f"thread {pid} memory policies", " ".join(found)


def now() -> dict[str, str]:
    """Everything that is to be as before."""
    return {**state.known(FIRST), **dict(files()), **dict(policies())}


def of_guest(name: str) -> dict[str, set[str]]:
    """Where its threads may run, and what its control groups say, by file."""
    [group] = Path("/sys/fs/cgroup/machine").glob(f"qemu-*-{name}.libvirt-qemu")
    found: dict[str, set[str]] = {"threads": masks(name)}
    for file in sorted(group.rglob("*")):
        if state.CGROUP_SETTINGS.fullmatch(file.name):
            place = re.sub(r"\d+", "N", str(file.relative_to(group)))
            found.setdefault(place, set()).add(disks.read(file) or UNSET.get(file.name, ""))
    return found


@dataclass
class Scene:
    """The machine's daemons and disks, and what its guests are like while nobody tunes them."""

    tuned: Tuned
    libvirtd: Libvirtd
    other: private_libvirtd.Libvirtd
    names: Mapping[str, str]
    folder: Path
    plain: dict[str, set[str]]
    started: float

    def say(self, what: str) -> None:
        """With the seconds since the beginning."""
        print(f"{time.monotonic() - self.started:.0f} s: {what}", flush=True)

    def start(self, names: tuple[str, ...]) -> None:
        """Start guests, one after the other."""
        for name in names:
            self.libvirtd.connection.lookupByName(name).create()
        self.say(f"started: {', '.join(names)}")

    def running(self) -> list[str]:
        """Guests that run in the machine's own libvirtd."""
        return [one.name() for one in self.libvirtd.connection.listAllDomains(1)]

    def wait_verified(self) -> None:
        """Until all is as asked."""
        said = ""

        def verified() -> bool:
            nonlocal said
            passed, said = self.tuned.verify()
            return passed and "still being applied" not in said

        try:
            wait_for("verified", verified, SLOW_SECONDS)
        except TimeoutError as error:
            raise AssertionError(f"{said}\n{self.tuned.log()[-8000:]}") from error
        for name in self.running():
            assert len(masks(name)) == 1, (name, masks(name), said)
            assert masks(name) <= set(NODE_CPUS), (name, masks(name), said)
        self.say(f"verified with {', '.join(self.running())}")

    def wait_back(self, before: Mapping[str, str]) -> None:
        """Until all is as before, also the guests that were not there then."""
        wait: Callable[[], bool] = lambda: not state.differences(before, now())  # noqa: E731
        with contextlib.suppress(TimeoutError):
            wait_for("all is back", wait, 120)
        assert state.differences(before, now()) == []
        for name in self.running():
            assert of_guest(name) == self.plain, name
        self.say("all is back")


DMSETUP = Path(os.environ.get("TUNED_VIRT_TOOLS", "/")) / "usr/sbin/dmsetup"
MODULES = ("virtio_blk", "virtio_scsi", "sd_mod", "ahci", "nvme", "loop", "dm_mod", "dm_crypt")
SCHEDULERS = ("xts", "bfq", "kyber-iosched")
"""Loaded before anything is remembered: the kernel keeps them once a disk has used them."""

SERIALS = {
    "on-virtio": "blk-one",
    "on-scsi": "vscsi-one",
    "on-nvme": "nvme-alone",
    "on-crypt": "sata-one",
    "on-queues": "blk-four",
}
"""By the guest that is there; dm-crypt is between one of them and its disk."""


def dmsetup(*arguments: str, check: bool = True) -> None:
    """Where it is unpacked, as nothing else of these tools is used."""
    libraries = f"LD_LIBRARY_PATH={DMSETUP.parents[1]}/lib/x86_64-linux-gnu"
    disks.run("env", libraries, str(DMSETUP), *arguments, check=check)


@pytest.fixture
def names(product: None) -> Iterator[dict[str, str]]:
    """A disk of each kind by the guest that is on it."""
    disks.run("modprobe", "--all", *MODULES, *SCHEDULERS)
    wait_for("every disk", lambda: {*SERIALS.values()} <= disks.by_serial().keys(), SLOW_SECONDS)
    serials = disks.by_serial()
    found = {guest: serials[serial] for guest, serial in SERIALS.items()}
    with contextlib.ExitStack() as stack:
        [loop] = stack.enter_context(loopdev.loops(1))
        stack.enter_context(loopdev.attached(loop))
        crypted = found["on-crypt"]
        table = f"0 65536 crypt aes-xts-plain64 {KEY} 0 /dev/{crypted} 0"
        dmsetup("create", CRYPT, "--uuid", f"CRYPT-PLAIN-{CRYPT}", "--noudevsync", "--table", table)
        stack.callback(dmsetup, "remove", "--noudevsync", CRYPT, check=False)
        dmsetup("mknodes", CRYPT)
        link(crypted)
        yield {**found, "on-loop": loop}


def link(disk: str) -> None:
    """What udev makes of a disk, and libvirt goes by where one is below a guest's."""
    folder = Path("/dev/block")
    folder.mkdir(exist_ok=True)
    path = folder / disks.read(disks.BLOCK / disk / "dev")
    if not path.is_symlink():
        path.symlink_to(f"../{disk}")


@pytest.fixture
def libvirtd() -> Iterator[Libvirtd]:
    """The machine's own."""
    made = Libvirtd(Path(os.environ["TUNED_VIRT_QEMU"]))
    yield made
    made.stop()


@pytest.fixture
def other(libvirtd: Libvirtd, product: None) -> Iterator[private_libvirtd.Libvirtd]:
    """Another machine's, with our hook and without a TuneD."""
    with private_libvirtd.Libvirtd(
        controllers='"cpu","memory","blkio","cpuset"', seconds=SLOW_SECONDS
    ) as made:
        root = Path(f"/proc/{made.pid}/root")
        hooks = root / "etc/libvirt/hooks/qemu.d"
        hooks.mkdir(parents=True)
        shutil.copy(REPO / "hooks/qemu.d/tuned-virt", hooks)
        shutil.copytree(KNOWN, root / KNOWN.relative_to("/"), dirs_exist_ok=True)
        made.restart()
        yield made


@pytest.fixture
def scene(
    tuned: Tuned, names: dict[str, str], libvirtd: Libvirtd, other: private_libvirtd.Libvirtd
) -> Iterator[Scene]:
    """All guests are defined, the first ones run, and nothing is tuned."""
    started = time.monotonic()
    with (CONFIGURATION / f"{PROFILE}-variables.conf").open("a") as settings:
        settings.write(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        made = Scene(tuned, libvirtd, other, names, Path(folder), {}, started)
        define(made)
        made.start(FIRST)
        made.plain = of_guest(FIRST[0])
        yield made


def define(scene: Scene) -> None:
    """All guests, on a disk each but the one that moves and the one that grows."""
    rom = program.write(scene.folder, MIB, "halts")
    for name in ALL:
        uuid = str(uuids.uuid4())
        path = f"/dev/mapper/{CRYPT}" if name == "on-crypt" else f"/dev/{scene.names.get(name)}"
        disk = DISK.format(path=path) if name in scene.names else ""
        plain = GUEST.format(
            name=name, uuid=uuid, mib=MIB, vcpus=2 if name == "grows" else 1, rom=rom, disk=disk
        )
        scene.libvirtd.connection.defineXML(plain)


def pools() -> list[str]:
    """Pages of 2 MiB on each node."""
    file = "hugepages/hugepages-2048kB/nr_hugepages"
    return [disks.read(NODES / f"node{node}" / file) for node in range(4)]


def assert_host_is_tuned(scene: Scene) -> None:
    """Pools, KSM, THP, the disks below guests, and a guest's limits."""
    assert pools() == POOLS
    assert Path("/dev/hugepages").is_mount()
    assert ksm("merge_across_nodes") == "0"
    wanted = {
        "on-scsi": "bfq",
        "on-crypt": "bfq",
        "on-nvme": "kyber",
        "on-virtio": "mq-deadline",
        "on-loop": "mq-deadline",
    }
    assert {name: disks.scheduler(scene.names[name]) for name in wanted} == wanted
    for name in (*FIRST, "on-nvme"):
        told = of_guest(name)
        assert {file: told[file] for file in LIMITS} == {
            file: {text} for file, text in LIMITS.items()
        }, name


def stop(scene: Scene, name: str) -> None:
    """Pull a guest's plug; it is forgotten."""
    domain = scene.libvirtd.connection.lookupByName(name)
    domain.destroy()
    wait_for(f"{name} is forgotten", functools.partial(forgotten, domain.UUIDString()), 60)


def forgotten(uuid: str) -> bool:
    """Whether no file says that a guest is tuned."""
    return not any(uuid in file.read_text() for file in Path("/run/tuned-virt").glob("*.json"))


def grow(scene: Scene, name: str) -> None:
    """Plug in a vCPU."""
    domain = scene.libvirtd.connection.lookupByName(name)
    domain.setVcpusFlags(2, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    assert len(domain.vcpus()[0]) == 2


def migrate(scene: Scene, name: str) -> None:
    """Live, to the other libvirtd: nothing of ours is there, and here it is forgotten."""
    domain = scene.libvirtd.connection.lookupByName(name)
    assert "urn:tuned-virt-plus" in domain.XMLDesc(0)
    with scene.other.connection() as there:
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE
        parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{scene.folder}/migration"}
        moved = domain.migrate3(there, parameters, flags)
        xml = moved.XMLDesc(0)
        for ours in ("tuned-virt", "vcpupin", "emulatorpin", "<shares>", "soft_limit", "blkiotune"):
            assert ours not in xml, xml
        assert moved.vcpuPinInfo(0)[0][:8] == (True,) * 8
        assert moved.schedulerParameters()["cpu_shares"] == 100
    wait_for(f"{name} is forgotten", functools.partial(forgotten, domain.UUIDString()), 60)


def restore() -> None:
    """As an administrator does it whose TuneD is dead."""
    wait_for("restored", lambda: "not restored" not in said_by_restore(), SLOW_SECONDS)


def said_by_restore() -> str:
    """What is not restored yet is to be tried again: this libvirtd may be slow."""
    said = disks.run("tuned-virt", "restore", check=False)
    print(*(line for line in said.splitlines() if "not restored" in line), sep="\n")
    return said


def test_a_host_is_tuned_lives_and_is_as_before(scene: Scene) -> None:
    before = now()
    scene.say(f"{len(before)} values are remembered")
    scene.tuned.switch(PROFILE)
    scene.start(SECOND)
    scene.wait_verified()
    assert_host_is_tuned(scene)

    stop(scene, "on-loop")
    scene.start(THIRD)
    scene.wait_verified()
    grow(scene, "grows")
    scene.wait_verified()
    migrate(scene, "moves")
    scene.say("one has moved")
    scene.wait_verified()

    scene.tuned.kill9()
    restore()
    scene.wait_back(before)
    scene.tuned.start()
    scene.wait_verified()
    assert_host_is_tuned(scene)

    scene.tuned.off()
    scene.wait_back(before)
