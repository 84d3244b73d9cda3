# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups of a process: where its files are, in version 1 and in version 2.

Sources: cgroups(7), the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.stat, *.pressure) and
scheduler/sched-bwc.rst, libvirt's cgroups.rst (a guest's emulator/ and vcpuN/ below its own).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFileError, KernelFS

PRESSURES = ("cpu", "memory", "io")

VERSION_1 = "control groups version 1 do not offer it"
NO_PSI = "this kernel does not offer it (CONFIG_PSI, psi=1 on its command line)"
NO_GROUP = "its process is in no control group of its own"
NO_CPU = "no cpu controller of control groups has this process"

PARTS = re.compile(r"(/libvirt)?/(emulator|vcpu\d+|iothread\d+)$")
"""What libvirt makes below a guest's own group, one for each part of it."""


@dataclass(frozen=True)
class Pressure:
    """Percent of the last 10, 60 and 300 s in which some, or all, tasks waited for a resource."""

    resource: str
    share: str
    avg10: float
    avg60: float
    avg300: float


@dataclass(frozen=True)
class Throttling:
    """How often a quota of CPU time has stopped a group's tasks since it was made.

    cgroup  below its hierarchy; periods: of the quota, in which a task wanted to run
    """

    cgroup: str
    periods: int
    throttled: int
    throttled_s: float


def pressures(fs: KernelFS, pid: int) -> tuple[list[Pressure], str]:
    """Of a guest's own group; and why there are none, "" where there are.

    The root group's would be those of the whole host.
    """
    try:
        mounts = _mounts(fs)
        folder = _folder(fs, f"/proc/{pid}", "", mounts)
        own = folder is not None and folder != mounts[""][0]
        found = list(_pressures(fs, PARTS.sub("", folder))) if folder and own else []
    except KernelFileError as error:
        return [], str(error)
    if found:
        return found, ""
    if "cpu" in mounts or "" not in mounts:
        return [], VERSION_1
    return [], NO_PSI if own else NO_GROUP


def _pressures(fs: KernelFS, folder: str) -> Iterator[Pressure]:
    for resource in PRESSURES:
        text = fs.read_optional(f"{folder}/{resource}.pressure") or ""
        for share, *averages in re.findall(
            r"^(some|full) avg10=(\d+\.\d+) avg60=(\d+\.\d+) avg300=(\d+\.\d+)", text, re.MULTILINE
        ):
            yield Pressure(resource, share, *map(float, averages))


def throttling(fs: KernelFS, pid: int, threads: Iterable[int]) -> tuple[list[Throttling], str]:
    """Of the groups that a process's threads are in and those above, where a quota of CPU time is
    or was; and why that cannot be told, "" where it can."""
    try:
        mounts = _mounts(fs)
        folders = {_folder(fs, f"/proc/{pid}/task/{one}", "cpu", mounts) for one in threads}
        folders.discard(None)
        places = {level for folder in folders if folder for level in _levels(folder, mounts)}
        found = [_throttling(fs, *place) for place in sorted(places)]
    except KernelFileError as error:
        return [], str(error)
    return [one for one in found if one.periods], "" if folders else NO_CPU


def _throttling(fs: KernelFS, mounted: str, path: str) -> Throttling:
    text = fs.read_optional(f"{mounted}{path}/cpu.stat") or ""
    stat = dict(re.findall(r"^(\w+) (\d{1,18})$", text, re.MULTILINE))
    microseconds = int(stat.get("throttled_usec", 0)) or int(stat.get("throttled_time", 0)) // 1000
    counts = int(stat.get("nr_periods", 0)), int(stat.get("nr_throttled", 0))
    return Throttling(path, *counts, round(microseconds / 1e6, 1))


def own_path(fs: KernelFS, pid: int) -> str:
    """A guest's own group in version 2, else that of the cpu controller; "" for the root's."""
    paths = _paths(fs.read_permitted(f"/proc/{pid}/cgroup") or "")
    found = paths.get("", "/")
    return PARTS.sub("", found if found != "/" else paths.get("cpu", found)).rstrip("/")


def _levels(folder: str, mounts: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The folder and those above it, without the root, as mount and path."""
    mounted = mounts["cpu" if "cpu" in mounts else ""][0]
    path = folder[len(mounted) :]
    while path.strip("/"):
        yield mounted, path
        path = path.rpartition("/")[0]


def _folder(
    fs: KernelFS, process: str, controller: str, mounts: Mapping[str, tuple[str, str]]
) -> str | None:
    """Where the files of a process's group are; None where its hierarchy is not mounted."""
    paths = _paths(fs.read_optional(f"{process}/cgroup") or "")
    name = controller if controller in mounts else ""
    if name not in mounts or name not in paths:
        return None
    mounted, root = mounts[name]
    path = paths[name]
    inside = path[len(root) :] if root != "/" and f"{path}/".startswith(f"{root}/") else path
    return mounted + inside.rstrip("/")


def _paths(text: str) -> dict[str, str]:
    """A process's groups by controller; "" is version 2."""
    found: dict[str, str] = {}
    for controllers, path in re.findall(r"^\d+:([^:\n]*):(.*)$", text, re.MULTILINE):
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _mounts(fs: KernelFS) -> dict[str, tuple[str, str]]:
    """Where each hierarchy is mounted, and which of its groups is; "" is version 2."""
    found: dict[str, tuple[str, str]] = {}
    for line in (fs.read_optional("/proc/self/mountinfo") or "").splitlines():
        mount, _, system = (part.split() for part in line.partition(" - "))
        if len(mount) < 5 or len(system) < 3:
            continue
        place = procfs.unescaped(mount[4]), mount[3]
        if system[0] == "cgroup2":
            found.setdefault("", place)
        elif system[0] == "cgroup":
            for controller in system[2].split(","):
                found.setdefault(controller, place)
    return found
