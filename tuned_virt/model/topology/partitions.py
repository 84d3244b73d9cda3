# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs that the cpusets of control groups leave to guests, by libvirt's <resource><partition>.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst (cpuset.cpus.effective, which leaves
out what cpuset.cpus.partition gives to other groups) and cgroup-v1/cpusets.rst, libvirt's
virSystemdMakeSliceName ("/machine/rt" is machine.slice/machine-rt.slice) and, without systemd,
cgroups.rst ("machine/rt.partition").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFS

TOP = "/sys/fs/cgroup"
V1 = f"{TOP}/cpuset"
MACHINE = "/machine"
"""The partition of guests that name none."""

EFFECTIVE = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
NOT_GUESTS = ("system.slice", "user.slice")
DEEPEST = 6


def read(fs: KernelFS, online: Collection[int]) -> dict[str, frozenset[int]]:
    """Partition → CPUs of its cpuset that are online, where that leaves out some; "/" is the root.

    A group without a cpuset of its own is not there: it has its parent's.
    """
    top = V1 if fs.exists(V1) else TOP
    found = dict(_below(fs, top, "/", 0))
    present = frozenset(online)
    sets = {name: cpus & present for name, cpus in found.items()}
    if all(cpus in (frozenset(), present) for cpus in sets.values()):
        return {}
    return {name: cpus for name, cpus in sorted(sets.items()) if cpus}


def of(sets: Mapping[str, frozenset[int]], partition: str) -> frozenset[int] | None:
    """A partition's CPUs, or those of the nearest group above that has some; None for all."""
    name = partition.rstrip("/") or "/"
    while name not in sets:
        if name == "/" or not name.startswith("/"):
            return None
        name = name.rpartition("/")[0] or "/"
    return sets[name]


def _below(
    fs: KernelFS, folder: str, partition: str, depth: int
) -> Iterator[tuple[str, frozenset[int]]]:
    cpus = _effective(fs, folder)
    if cpus is not None:
        yield partition, cpus
    if depth == DEEPEST:
        return
    for name in sorted(fs.names(folder)):
        inner = _partition(name, partition)
        if inner and not (depth == 0 and name in NOT_GUESTS):
            yield from _below(fs, f"{folder}/{name}", inner, depth + 1)


def _effective(fs: KernelFS, folder: str) -> frozenset[int] | None:
    for name in EFFECTIVE:
        text = fs.read_optional(f"{folder}/{name}")
        if text is not None:
            try:
                return cpuset.parse(text)
            except ValueError:
                return None
    return None


def _partition(name: str, parent: str) -> str:
    """libvirt's name of a group below another's, "" where it is no partition."""
    if name.endswith(".slice"):
        parts = name[: -len(".slice")].split("-")
        return "/" + "/".join(map(_unescaped, parts))
    if name.endswith(".partition"):
        return f"{parent.rstrip('/')}/{name[: -len('.partition')]}"
    return MACHINE if (name, parent) == ("machine", "/") else ""


def _unescaped(text: str) -> str:
    """systemd writes "-" of a name as "\\x2d"."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
