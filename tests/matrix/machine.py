# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the matrix: QEMU without KVM, over as many boots as its steps take."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.matrix import images, table
from tests.matrix.cells import Cell
from tests.matrix.table import Result, Step
from tests.vm import boot

MEMORY = "2G"
CPU = "qemu64,-svm"
"""One without KVM, which libvirt would probe, and without ciphers that drivers are loaded for."""

ACCELERATOR = "tcg,thread=single"
"""One thread for all CPUs takes half the time of one for each where two machines run at a time."""

CPUS = "4,sockets=4,cores=1,threads=1"

TOPOLOGIES = {
    "1": ("cpus=0-3,memdev=m0:2G",),
    "2": ("cpus=0-2,memdev=m0:2G", "cpus=3"),
    "4": tuple(f"cpus={node},memdev=m{node}:512M" for node in range(4)),
}
"""Nodes → what each has; of two nodes one has a single CPU and no memory."""

CGROUPS = {
    "v1": (
        "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
        " systemd.legacy_systemd_cgroup_controller=1"
    ),
    "v2": "systemd.unified_cgroup_hierarchy=1",
}
"""The last for v1: libvirt starts no guest where systemd has a version 2 beside it for itself."""

UNUSED = "pcspkr,psmouse,i2c_i801,lpc_ich,iTCO_wdt,bochs,drm,loop,fuse,mousedev,evdev,intel_agp"
"""Drivers that udev would load and nothing here needs."""

ARGUMENTS = (
    "console=ttyS0 panic=-1 mitigations=off audit=0 apparmor=0 systemd.show_status=0 tsc=reliable"
    f" systemd.default_timeout_start_sec=900 module_blacklist={UNUSED}"
)
"""With several sockets the kernel would take no TSC, but the HPET: an emulated device at each look
at the clock."""

LEARN = "matrix=learn"

LIMIT_SECONDS = 1800
POLL_SECONDS = 0.3
CONSOLE_TAIL = 40


def numa(nodes: str) -> Iterator[str]:
    """QEMU's options for a topology."""
    for number, node in enumerate(TOPOLOGIES[nodes]):
        has, _, size = node.partition(":")
        if size:
            name = has.partition("memdev=")[2]
            yield from ("-object", f"memory-backend-ram,id={name},size={size}")
        yield from ("-numa", f"node,nodeid={number},{has}")


def command(cell: Cell, disk: Path, folder: Path, *, keep: bool) -> list[str]:
    """QEMU's command line; the disk is only written to if it is to keep what it is given."""
    arguments = f"{ARGUMENTS} {CGROUPS[cell.cgroup]} {LEARN if keep else ''}"
    modules = images.modules_of(cell.kernel)
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35,sata=off,i8042=off,mem-merge=off", "-accel", ACCELERATOR, "-cpu", CPU),
        *("-m", MEMORY, "-smp", CPUS, *numa(cell.nodes)),
        *("-kernel", str(boot.kernel_image(cell.kernel)), "-initrd", str(folder / "initramfs")),
        *("-append", arguments, "-device", "virtio-rng-pci", "-device", "virtio-scsi-pci"),
        *("-drive", f"file={disk},format=raw,if=none,id=disk,snapshot={'off' if keep else 'on'}"),
        *("-device", "scsi-hd,drive=disk"),
        *("-fsdev", f"local,id=modules,path={modules},security_model=none,readonly=on"),
        *("-device", "virtio-9p-pci,fsdev=modules,mount_tag=modules"),
        *("-serial", f"file:{folder}/console", "-serial", f"file:{folder}/report"),
    ]


def run_machine(cell: Cell, disk: Path, folder: Path, *, keep: bool = False) -> str:
    """Run a cell's machine until it is off; why it was ended, or an empty text."""
    images.initramfs(cell, folder)
    deadline = time.monotonic() + LIMIT_SECONDS
    with subprocess.Popen(
        command(cell, disk, folder, keep=keep),
        stdin=subprocess.DEVNULL,
        stdout=(folder / "qemu").open("w"),
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(folder)},
    ) as machine:
        try:
            while machine.poll() is None:
                if time.monotonic() > deadline:
                    return f"not off after {LIMIT_SECONDS} s"
                if "Kernel panic" in console(folder):
                    return "the kernel panicked"
                time.sleep(POLL_SECONDS)
        finally:
            machine.kill()
    return (folder / "qemu").read_text() if machine.returncode else ""


def console(folder: Path) -> str:
    """What a machine has printed."""
    file = folder / "console"
    return file.read_text(errors="replace") if file.exists() else ""


def reported(folder: Path) -> list[dict[str, object]]:
    """What a machine has reported so far; an unfinished last line is left out."""
    file = folder / "report"
    lines = file.read_text(errors="replace").split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def learned_disk(cell: Cell) -> Path:
    """The cell's disk, whose libvirt knows its QEMU; booted once for that, then kept.

    Raises debian.Unavailable, and RuntimeError with its console where it does not come so far.
    """
    learned = images.FOLDER / "disks" / f"{cell.suite}-{cell.tuned}.learned.img"
    if not learned.exists():
        learned.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=learned.parent) as scratch:
            new = Path(scratch) / "disk.img"
            subprocess.run(["cp", "--sparse=always", str(images.disk(cell)), str(new)], check=True)
            broken = run_machine(cell, new, Path(scratch), keep=True)
            if broken or not reported(Path(scratch)):
                raise RuntimeError(f"{cell.suite}: {broken}\n{tail(Path(scratch))}")
            new.rename(learned)
    return learned


def tail(folder: Path) -> str:
    """The console's last lines."""
    return "\n".join(console(folder).splitlines()[-CONSOLE_TAIL:])


def run_cell(cell: Cell) -> Result:
    """All steps of a cell; its console and report stay in a folder of the cell's name.

    Once more where it failed and its clock had jumped.
    """
    first = _steps_of(cell)
    if first.passed or not table.jumped(first):
        return first
    print(f"{cell}: its clock jumped, so it is booted once more: {first.failures}", flush=True)
    return _steps_of(cell)


def _steps_of(cell: Cell) -> Result:
    folder = images.FOLDER / "cells" / str(cell).replace("/", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    disk = learned_disk(cell)
    started = time.monotonic()
    broken = run_machine(cell, disk, folder)
    return Result(cell, steps(reported(folder)), time.monotonic() - started, broken)


def steps(lines: Sequence[dict[str, object]]) -> list[Step]:
    """The steps that a machine has reported."""
    return [
        Step(str(line["step"]), float(str(line["seconds"])), str(line["failure"])) for line in lines
    ]
