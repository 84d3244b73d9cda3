# SPDX-License-Identifier: GPL-2.0-or-later
"""All settings of a booted machine: the kernel's, and its threads, groups, mounts and guests.

More than tests/kernel_snapshot.py, which has what our profiles are known to write: here whatever
root may write and read counts, but for what changes by itself.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from fnmatch import translate

from tests.kernel_snapshot import snapshot

State = Mapping[str, str]
"""By the path of a file, or the kind and name of what is not one."""

LEFT_OUT = (
    *("/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/slab", "/sys/kernel/security"),
    *("/sys/fs/cgroup", "/sys/fs/bpf", "/sys/fs/pstore", "/sys/firmware", "/sys/fs/ext4"),
)
"""Folders below /sys with other file systems' files, or with none that are settings."""

CHANGING = (
    *("/proc/sys/kernel/random/*", "/proc/sys/kernel/ns_last_pid", "/proc/sys/fs/*-state"),
    *("/proc/sys/fs/binfmt_misc/*", "*/uevent", "*/power/wakeup*", "*/power/autosuspend_delay_ms"),
    *("/sys/power/wakeup_count", "/sys/power/state", "*/rtc*/since_epoch"),
    *("/sys/bus/*/drivers_autoprobe", "/sys/kernel/mm/lru_gen/*"),
)
"""Patterns of files that change by themselves, or that are no settings."""

IS_CHANGING = re.compile("|".join(map(translate, CHANGING)))

CGROUP_SETTINGS = re.compile(
    r"cpuset\.(cpus|mems|cpus\.partition)|cpu\.(weight|max|shares|cfs_quota_us|idle)"
    r"|memory\.(min|low|high|max|swap\.max|limit_in_bytes|soft_limit_in_bytes)"
    r"|(io|blkio)\.(bfq\.)?weight|io\.max|cgroup\.subtree_control"
)

MAX_BYTES = 4096


def state(guests: tuple[str, ...] = ()) -> dict[str, str]:
    """The machine's settings now."""
    return {
        **snapshot(),
        **dict(_kernel_files("/proc/sys")),
        **dict(_kernel_files("/sys")),
        **dict(_interrupts()),
        **dict(_threads()),
        **dict(_cgroups()),
        **dict(_mounts()),
        **dict(_modules()),
        **{f"guest {guest}": virsh("dumpxml", guest) for guest in guests},
    }


def differences(before: State, now: State) -> list[str]:
    """What is not as it was, one line each; threads and groups only while both times there."""
    return [
        f"{name}: {before.get(name, 'not there')} → {now.get(name, 'not there')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
        and not (_comes_and_goes(name) and _once(name, before, now))
    ]


def of_every_boot(settings: State) -> dict[str, str]:
    """What of a state is the same after a reboot: not threads, nor what has their numbers in it."""
    return {
        name: value
        for name, value in settings.items()
        if not name.startswith(("thread ", "guest ", "module ", "/sys/fs/cgroup/"))
    }


def _comes_and_goes(name: str) -> bool:
    return name.startswith(("thread ", "/sys/fs/cgroup/"))


def _once(name: str, before: State, now: State) -> bool:
    return name not in before or name not in now


def virsh(*arguments: str) -> str:
    """What virsh prints. Raises CalledProcessError."""
    done = subprocess.run(
        ["virsh", "--quiet", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def _kernel_files(top: str) -> Iterator[tuple[str, str]]:
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if f"{folder}/{name}" not in LEFT_OUT]
        for name in names:
            path = f"{folder}/{name}"
            if not IS_CHANGING.match(path):
                yield from _setting(path)


def _setting(path: str) -> Iterator[tuple[str, str]]:
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode) and mode & stat.S_IWUSR and mode & stat.S_IRUSR:
            with open(path, "rb") as file:
                yield path, file.read(MAX_BYTES).decode(errors="replace").strip()
    except OSError:
        return


def _interrupts() -> Iterator[tuple[str, str]]:
    for number in os.listdir("/proc/irq"):
        yield from _setting(f"/proc/irq/{number}/smp_affinity_list")
    yield from _setting("/proc/irq/default_smp_affinity")


def _threads() -> Iterator[tuple[str, str]]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status") as file:
                    fields = dict(line.split(":", 1) for line in file.read().splitlines())
                allowed = f"CPUs {fields['Cpus_allowed_list'].strip()}"
                allowed += f", memory {fields['Mems_allowed_list'].strip()}"
                yield f"thread {pid}/{task} {fields['Name'].strip()}", allowed
        except OSError:
            continue


def _cgroups() -> Iterator[tuple[str, str]]:
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if CGROUP_SETTINGS.fullmatch(name):
                yield from _setting(f"{folder}/{name}")


def _mounts() -> Iterator[tuple[str, str]]:
    with open("/proc/self/mounts") as file:
        for line in file:
            source, place, kind, options, *_ = line.split()
            yield f"mount {place} {kind}", f"{source} {options}"


def _modules() -> Iterator[tuple[str, str]]:
    with open("/proc/modules") as file:
        for line in file:
            yield f"module {line.split()[0]}", "loaded"
