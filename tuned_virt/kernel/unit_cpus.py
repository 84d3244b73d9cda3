# SPDX-License-Identifier: GPL-2.0-or-later
"""AllowedCPUs= of systemd's units, set until the next boot and taken back without a trace.

Source: systemd.resource-control(5). It needs the second version of control groups. What
`set-property --runtime` sets is in a drop-in file below one of DROP_INS; one that was not there
before is removed afterwards, as an empty one would go on hiding what the administrator configures.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable

from tuned_virt.kernel import cpuset, systemd, timeouts
from tuned_virt.kernel.files import KernelFileError, KernelFS

RUNS = "/run/systemd/system"
CGROUPS = "/sys/fs/cgroup"
CONTROLLERS = f"{CGROUPS}/cgroup.controllers"
DROP_INS = ("/run/systemd/system.control", "/run/systemd/transient")
"""The second for units without a file, as init.scope (systemd's unit_drop_in_dir)."""

FILE = "50-AllowedCPUs.conf"

POSSIBLE = "/sys/devices/system/cpu/possible"
"""CPUs of this machine and those that can be added to it, as a list."""


def unavailable(fs: KernelFS) -> str:
    """Why it cannot be set on this machine; "" where it can."""
    if not fs.exists(RUNS):
        return "systemd does not run here, which keeps the host's tasks off CPUs"
    controllers = fs.read_optional(CONTROLLERS)
    if controllers is None:
        return (
            "AllowedCPUs= needs control groups version 2, and this host has version 1: start it"
            " with systemd.unified_cgroup_hierarchy=1 on the kernel command line"
        )
    if "cpuset" not in controllers.split():
        return "this kernel has no cpuset controller, which AllowedCPUs= needs"
    return ""


def read(units: Iterable[str]) -> dict[str, str]:
    """AllowedCPUs= by unit, as a list; "" where all are allowed. Raises ToolError."""
    told = systemd.systemctl(
        "show", "--property=Id,AllowedCPUs", *units, seconds=timeouts.SYSTEMD_ANSWERS
    )
    found = {}
    for block in told.split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        cpus = re.sub(r"[\s,]+", ",", fields.get("AllowedCPUs", "").strip())
        found[fields.get("Id", "")] = cpuset.text(cpuset.parse(cpus))
    return found


def _drop_ins(unit: str) -> list[str]:
    return [f"{folder}/{unit}.d/{FILE}" for folder in DROP_INS]


def is_runtime(fs: KernelFS, unit: str) -> bool:
    """Whether a drop-in of `set-property --runtime` is there."""
    return any(map(fs.exists, _drop_ins(unit)))


def write(fs: KernelFS, unit: str, cpus: str, runtime: bool) -> None:
    """Set a unit's CPUs, "" for all; without `runtime` no drop-in stays.

    Raises ToolError, and KernelFileError where a group stays confined.
    """
    words = ("set-property", "--runtime", "--", unit, f"AllowedCPUs={cpus}")
    try:
        systemd.systemctl(*words, seconds=timeouts.SYSTEMD_ANSWERS)
    finally:  # it may still do it, though late
        if not cpus:
            _clear(fs, unit)
    if not runtime:
        for path in _drop_ins(unit):
            with contextlib.suppress(KernelFileError):
                fs.remove(path)


def _clear(fs: KernelFS, unit: str) -> None:
    """Leave a unit's control group the CPUs of the group above it, also those added later.

    systemd leaves the group as it was when no CPUs are named any more (its #43846); and kernels as
    6.12 (validate_change in kernel/cgroup/cpuset.c) take no empty list while tasks are in it.
    The file is there while any unit beside it needs the controller, as machine.slice does
    with libvirt's guests; systemd may remove it meanwhile, which frees the tasks.
    """
    path = f"{CGROUPS}/{unit}/cpuset.cpus"
    if not fs.read_optional(path):
        return
    try:
        fs.write(path, "\n")
    except KernelFileError:
        try:
            fs.write(path, fs.read(POSSIBLE))
        except KernelFileError:
            if fs.exists(path):
                raise
