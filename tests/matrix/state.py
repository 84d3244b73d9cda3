# SPDX-License-Identifier: GPL-2.0-or-later
"""All settings of a booted machine: the kernel's, and its threads, groups, mounts and guests.

More than tests/kernel_snapshot.py, which has what our profiles are known to write: here whatever
root may write and read counts, but for what changes by itself.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from fnmatch import translate
from xml.etree import ElementTree

from tests.kernel_snapshot import active_word, snapshot

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
    *("/sys/bus/*/drivers_autoprobe", "/sys/kernel/mm/lru_gen/*", "*/bdi/*/m??_bytes"),
)
"""Patterns of files that change by themselves, or that are no settings.

A disk's limits in bytes are percentages of the memory that is free at the time.
"""

IS_CHANGING = re.compile("|".join(map(translate, CHANGING)))

CGROUP_SETTINGS = re.compile(
    r"cpuset\.(cpus|mems|cpus\.partition)|cpu\.(weight|max|shares|cfs_quota_us|idle)"
    r"|memory\.(min|low|high|max|swap\.max|limit_in_bytes|soft_limit_in_bytes)"
    r"|(io|blkio)\.(bfq\.)?weight|io\.max|cgroup\.subtree_control"
)

REMAINING = (
    *("cputune/vcpupin", "cputune/emulatorpin", "cputune/shares", "blkiotune/weight"),
    "metadata/{urn:tuned-virt-plus:placement:1}placement",
    "metadata/{urn:tuned-virt-plus:limits:1}limits",
    "metadata/{urn:tuned-virt-plus:weights:1}weights",
)

LOADED = ("module bfq", "module kyber_iosched")
"""The kernel loads a disk's scheduler by itself, and keeps it."""

MAX_BYTES = 4096

KTHREADD = "2"
"""Parent of the kernel's threads, some of which it moves by itself."""

OF_ONE_BOOT = (
    "thread ",
    "guest ",
    "module ",
    "/sys/fs/cgroup/",
    "/proc/sys/vm/user_reserve_kbytes",
    *("/proc/sys/fs/fanotify/max_user_marks", "/proc/sys/fs/epoll/max_user_watches"),
    *("/proc/sys/user/max_", "/proc/sys/kernel/threads-max", "/sys/power/image_size"),
    *("/proc/sys/net/ipv4/tcp_mem", "/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem"),
    "/proc/sys/net/ipv4/udp_mem",
)
"""How names begin of what is another after a reboot; the last are of the memory then free (some
pages more or less)."""

NUMBERS = re.compile(r",(fd|pgrp|pipe_ino|size|nr_inodes)=\d+k?")
"""Mounts' options that tell of systemd's process, or of the memory that the kernel had left."""


def state(guests: tuple[str, ...] = ()) -> dict[str, str]:
    """The machine's settings now."""
    return {**dict(_kernel_files("/sys")), **known(guests)}


def known(guests: tuple[str, ...] = ()) -> dict[str, str]:
    """Those, but of /sys only what our profiles are known to write: a tenth of the files."""
    return {
        **{path: _value(path, text) for path, text in snapshot().items()},
        **dict(_kernel_files("/proc/sys")),
        **dict(_interrupts()),
        **dict(_threads()),
        **dict(_cgroups()),
        **dict(_mounts()),
        **dict(_modules()),
        **{f"guest {guest}": guest_settings(virsh("dumpxml", guest)) for guest in guests},
    }


def differences(before: State, now: State) -> list[str]:
    """What is not as it was, one line each; threads and groups only while both times there."""
    return [
        f"{name}: {_difference(before.get(name, 'not there'), now.get(name, 'not there'))}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
        and not (_comes_and_goes(name) and _once(name, before, now))
    ]


def _difference(before: str, now: str) -> str:
    """Both values; of long texts the lines that differ."""
    if "\n" not in before + now:
        return f"{before} → {now}"
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), lineterm="", n=0)
    return " ".join(line.strip() for line in lines if not line.startswith(("---", "+++", "@@")))


def of_every_boot(settings: State) -> dict[str, str]:
    """What of a state is the same after a reboot: not threads, nor what has their numbers in it."""
    return {name: value for name, value in settings.items() if not name.startswith(OF_ONE_BOOT)}


def _comes_and_goes(name: str) -> bool:
    return name.startswith(("thread ", "/sys/fs/cgroup/"))


def _once(name: str, before: State, now: State) -> bool:
    return name not in before or name not in now


def guest_settings(xml: str) -> str:
    """A guest's XML without what libvirt cannot take away again, and keeps of weights.

    Pins back on all CPUs stay, tagged as ours; what they do is compared as threads and groups.
    """
    root = ElementTree.fromstring(xml)
    for path in REMAINING:
        for parent in root.findall(f"{path}/.."):
            for found in parent.findall(path.rpartition("/")[2]):
                parent.remove(found)
    for name in ("metadata", "cputune", "blkiotune"):
        for empty in [one for one in root.findall(name) if len(one) == 0]:
            root.remove(empty)
    return ElementTree.tostring(root, encoding="unicode")


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
                yield path, _value(path, file.read(MAX_BYTES).decode(errors="replace").strip())
    except OSError:
        return


def _value(path: str, text: str) -> str:
    """Of a disk's schedulers the active one: others are there once their modules are loaded."""
    return active_word(text) if path.endswith("/queue/scheduler") else text


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
                if fields["PPid"].strip() == KTHREADD:
                    continue
                allowed = f"CPUs {fields['Cpus_allowed_list'].strip()}"
                allowed += f", memory {fields['Mems_allowed_list'].strip()}"
                yield f"thread {pid}/{task} {fields['Name'].strip()}", allowed
        except OSError:
            continue


def _cgroups() -> Iterator[tuple[str, str]]:
    """Where no CPUs are named, all are: libvirt cannot take away what it has written once."""
    with open("/sys/devices/system/cpu/online") as file:
        online = file.read().strip()
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if CGROUP_SETTINGS.fullmatch(name):
                for path, value in _setting(f"{folder}/{name}"):
                    yield path, value or online if name == "cpuset.cpus" else value


def _mounts() -> Iterator[tuple[str, str]]:
    with open("/proc/self/mounts") as file:
        for line in file:
            source, place, kind, options, *_ = line.split()
            yield f"mount {place} {kind}", f"{source} {NUMBERS.sub('', options)}"


def _modules() -> Iterator[tuple[str, str]]:
    with open("/proc/modules") as file:
        for line in file:
            name = f"module {line.split()[0]}"
            if name not in LOADED:
                yield name, "loaded"
