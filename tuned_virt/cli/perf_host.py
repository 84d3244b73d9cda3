# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host lacks for `perf kvm`: the program, KVM's events, counters, KVM itself."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator

from tuned_virt.cli.perf_command import PerfAction
from tuned_virt.kernel.commands import ToolError
from tuned_virt.kernel.commands import run as run_program
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model.guest import qemu_process

EVENTS = ("/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events")
"""Where tracefs may be mounted; debugfs mounts it below itself."""

SYSTEM_NAMES = ("/etc/os-release", "/usr/lib/os-release")

COUNTERS = "/sys/bus/event_source/devices"
CPU_COUNTERS = re.compile(r"cpu(?:_\w+|m_[cs]f)?|arm\w+|power\w*")
"""Names there of the CPU's own counters: x86 and POWER, hybrid CPUs, s390, Arm."""

OPTIONS_LAST = 10.0
"""Seconds for `perf version`."""


def obstacles(fs: KernelFS, action: PerfAction, pid: int | None) -> list[str]:
    """Reasons for which perf cannot do it, each with what would help."""
    found = list(_program(fs, action))
    if action.counts_exits and action.samples:
        found += _events(fs)
    if action.samples and pid is not None and qemu_process.uses_kvm(fs, pid) is False:
        found.append(
            "the guest runs in TCG, without KVM: there are no guest samples and no exits; its"
            f" emulation is a program of the host: perf record --pid {pid}"
        )
    return found


def remarks(fs: KernelFS, action: PerfAction) -> Iterator[str]:
    """What will be missing from the result."""
    if action.counts_exits or not action.samples:
        return
    try:
        names = fs.names(COUNTERS)
    except KernelFileError as error:
        yield f"whether the CPU has counters cannot be read: {error}"
        return
    if not any(map(CPU_COUNTERS.fullmatch, names)):
        yield (
            "this host has no hardware performance counters (PMU), as most virtual machines: perf"
            " samples by a timer of the host, which sees no instruction of a guest; the action stat"
            " needs none"
        )


def package(system: str, kernel: str) -> str:
    """The package that has perf, by the text of os-release and the kernel's release."""
    names = " ".join(re.findall(r'^ID(?:_LIKE)?="?([^"\n]*)', system, re.MULTILINE)).split()
    if "ubuntu" in names:
        return f"linux-tools-{kernel}"
    return "linux-perf" if "debian" in names else "perf"


def _program(fs: KernelFS, action: PerfAction) -> Iterator[str]:
    if shutil.which("perf") is None:
        texts = (fs.read_permitted(file) for file in SYSTEM_NAMES)
        named = package(next(filter(None, texts), ""), platform.release())
        yield f"perf is not installed: install the package {named}"
    elif action.counts_exits:
        try:
            options = run_program("perf", "version", "--build-options", seconds=OPTIONS_LAST)
        except ToolError as error:
            yield f"perf does not run: {error}"
            return
        if re.search(r"libtraceevent: \[ OFF \]", options):
            yield "this perf is built without libtraceevent: it has no tracepoints, so no exits"


def _events(fs: KernelFS) -> Iterator[str]:
    """KVM's tracepoints: kvm, and with other names on s390 and POWER."""
    try:
        names = [name for folder in EVENTS for name in fs.names(folder)]
    except KernelFileError as error:
        yield f"the kernel's events cannot be read: {error}"
        return
    if not names:
        yield "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing"
    elif not any(name.startswith("kvm") for name in names):
        loaded = fs.exists("/dev/kvm")
        why = "is built without its tracepoints" if loaded else "is not loaded: modprobe kvm"
        yield f"the kernel has no KVM events: KVM {why}"
