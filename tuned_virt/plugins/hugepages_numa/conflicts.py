# SPDX-License-Identifier: GPL-2.0-or-later
"""Who else decides on this machine's huge pages, or has to be told of them, in words."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.core import profile_dirs
from tuned_virt.kernel import procfs, systemd
from tuned_virt.kernel.commands import ToolError
from tuned_virt.kernel.files import KernelFS
from tuned_virt.kernel.procfs import start_time
from tuned_virt.plugins.hugepages_numa.setting_types import MountSetting

log = logging.getLogger("tuned")

SYSCTL_FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")
SYSCTL_FILE = "/etc/sysctl.conf"
SYSCTL = re.compile(
    r"^\s*-?\s*vm[./](nr_hugepages|nr_hugepages_mempolicy|nr_overcommit_hugepages)\s*=",
    re.MULTILINE,
)

PROFILE_FOLDERS = ("/etc/tuned", "/etc/tuned/profiles", "/usr/lib/tuned", "/usr/lib/tuned/profiles")
"""Unless tuned-main.conf says otherwise; the first that has a profile wins."""

ACTIVE_PROFILE = "/etc/tuned/active_profile"
DEPTH = 10
"""Profiles that include each other are followed so far."""

UNITS: Mapping[str, str] = {
    "hugetlb-gigantic-pages.service": "it allocates pages of 1G at boot",
    "hugetlb-reserve-pages.service": "it allocates pages of 1G at boot",
    "hugepages-reserve.service": "it sets the pools at boot",
}
"""Services, as distributions and the guide name them, that fill the same pools."""

WANTED_BY = ("sysinit.target", "multi-user.target", "basic.target", "local-fs.target")

LIBVIRT = ("libvirtd", "virtqemud")
OTHERS: Mapping[str, str] = {
    "kubelet": "kubelet counts huge pages only when it starts: restart it after a change",
    "hugeadm": "hugeadm (libhugetlbfs) is changing the same pools",
}


def read(fs: KernelFS) -> Iterator[str]:
    """Each of them, in a sentence."""
    yield from _sysctl_files(fs)
    yield from _profiles(fs)
    for unit, what in UNITS.items():
        if any(fs.link(f"/etc/systemd/system/{by}.wants/{unit}") for by in WANTED_BY):
            yield f"{unit} is enabled too: {what}"
    yield from (OTHERS[name] for name in procfs.by_name(fs, OTHERS))
    if fs.read_optional("/sys/kernel/mm/ksm/run") == "1":
        yield "KSM is running, but never merges huge pages (the guide's chapter 8.4)"
    if fs.read_optional("/sys/devices/system/memory/auto_online_blocks") == "online_movable":
        yield (
            "hot-plugged memory is brought online as movable: the kernel allocates no pages"
            " of 1G from it"
        )


def _sysctl_files(fs: KernelFS) -> Iterator[str]:
    """sysctl.d(5): of files of the same name the first folder's counts."""
    seen: set[str] = set()
    for path in [path for folder in SYSCTL_FOLDERS for path in fs.glob(f"{folder}/*.conf")]:
        name = path.rpartition("/")[2]
        if name not in seen:
            yield from _sets(path, fs.read_permitted(path) or "")
        seen.add(name)
    yield from _sets(SYSCTL_FILE, fs.read_optional(SYSCTL_FILE) or "")


def _sets(path: str, text: str) -> Iterator[str]:
    for name in dict.fromkeys(SYSCTL.findall(text)):
        yield f"{path} sets vm.{name}, which redistributes pages over all nodes: remove it there"


def _profiles(fs: KernelFS) -> Iterator[str]:
    """The same in the active TuneD profiles and those that they include."""
    waiting = (fs.read_optional(ACTIVE_PROFILE) or "").split()
    for name in _included(fs, waiting):
        for path in _profile_files(fs, name):
            yield from _sets(path, fs.read_permitted(path) or "")


def _included(fs: KernelFS, names: Iterable[str]) -> list[str]:
    found: list[str] = []
    waiting = list(names)
    while waiting and len(found) < DEPTH:
        name = waiting.pop(0).lstrip("-")
        if name in found or not re.fullmatch(r"[\w.-]+", name):
            continue
        found.append(name)
        for path in _profile_files(fs, name):
            text = fs.read_permitted(path) or ""
            for line in re.findall(r"^include\s*=\s*([^/\s].*)$", text, re.MULTILINE):
                waiting += re.split(r"\s*[,;]\s*", line.strip())
    return found


def _profile_files(fs: KernelFS, name: str) -> list[str]:
    folders = profile_dirs.named(fs.read_optional(profile_dirs.MAIN) or "")[::-1]
    paths = (f"{folder}/{name}/tuned.conf" for folder in folders or PROFILE_FOLDERS)
    return [path for path in paths if fs.exists(path)][:1]


def libvirt_daemons(fs: KernelFS) -> dict[str, int]:
    """The newest process of each of libvirt's daemons for QEMU, by name."""
    return {name: pids[-1] for name, pids in procfs.by_name(fs, LIBVIRT).items()}


def blind(
    fs: KernelFS, wanted: Iterable[MountSetting], daemons: Mapping[str, int]
) -> dict[MountSetting, str]:
    """Which daemon does not see a mount that is there.

    libvirt looks for hugetlbfs when it starts (virFileFindHugeTLBFS in its src/util/virfile.c). A
    mount is as old as its root's inode.
    """
    if not daemons:
        return {}
    boot = _booted(fs)
    starts = {name: boot + (start_time(pid) or 0) / procfs.ticks() for name, pid in daemons.items()}
    found = {}
    for setting in wanted:
        made = fs.changed_at(setting.path) or 0.0
        older = [name for name, started in starts.items() if started < made]
        if older:
            found[setting] = " and ".join(older)
    return found


def restart(daemons: Iterable[str]) -> None:
    """Restart libvirt's daemons where systemd runs them; guests run on. Only says what fails."""
    for name in daemons:
        try:
            systemd.systemctl("try-restart", f"{name}.service")
            log.info("hugepages_numa: %s restarted, to see the mount", name)
        except ToolError as error:
            log.error("hugepages_numa: %s is not restarted: %s", name, error)


def _booted(fs: KernelFS) -> float:
    """When the machine was booted, in seconds since the epoch."""
    found = re.search(r"^btime (\d+)", fs.read_optional("/proc/stat") or "", re.MULTILINE)
    return float(found[1]) if found else 0.0
