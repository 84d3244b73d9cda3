# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side: what tasks, work queues and interrupts may run where, read and written.

Sources: the kernel's Documentation/core-api/irq/irq-affinity.rst and workqueue.rst,
systemd.resource-control(5).
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.core.plan import Change, Values
from tuned_virt.core.tuner import Writer
from tuned_virt.kernel import cpuset, procfs, unit_cpus
from tuned_virt.kernel.commands import ToolError
from tuned_virt.kernel.files import CannotChange, KernelFileError, KernelFS, NotDone
from tuned_virt.kernel.irqbalance import Irqbalance
from tuned_virt.model.guest import qemu_threads
from tuned_virt.plugins.vm_pinning.isolation.planner import (
    BANNED,
    DEFAULT_IRQ,
    GUEST,
    IRQ,
    RUNTIME,
    SEVERAL,
    UNANSWERED,
    UNIT,
    UNITS,
    WORKQUEUES,
    HostIsolationPolicy,
    IsolationState,
)

ONLINE = "/sys/devices/system/cpu/online"
INTERRUPTS = "/proc/irq"

MASKS = {
    WORKQUEUES: "/sys/devices/virtual/workqueue/cpumask",
    DEFAULT_IRQ: f"{INTERRUPTS}/default_smp_affinity",
}
"""Settings whose files have hexadecimal masks."""

NEVER_MOVED = {errno.EIO, errno.EPERM}
"""What the kernel answers for an interrupt that it manages itself, or that belongs to one CPU."""


def guest_setting(name: str, pid: int, start: int) -> str:
    """The setting of a guest's process."""
    return f"{GUEST}{name}#{pid}:{start}/affinity"


def _process(setting: str) -> tuple[int, int]:
    found = re.search(r"#(\d+):(\d+)/affinity$", setting)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class HostReader:
    """Reads as much of the host as a policy and kept originals are about."""

    def __init__(self, irqbalance: Irqbalance) -> None:
        self.irqbalance = irqbalance
        self.immovable: set[str] = set()
        """Interrupts that the kernel has refused to move, for the life of the process."""
        self.ours: Values = {}
        self.units: dict[str, str] = {}
        """Units' settings that were read to decide, until one is written."""

    def read(self, fs: KernelFS, policy: HostIsolationPolicy, originals: Values) -> IsolationState:
        """The host. Raises KernelFileError."""
        unavailable, units = _units(fs)
        self.units = dict(units)
        found = {**units, **_masks(fs)}
        irqs = any(name == BANNED or name.startswith(IRQ) for name in originals)
        if policy.irqs or irqs:
            found.update(self._interrupts(fs))
        guests = {name for name in originals if name.startswith(GUEST)} | {*policy.loose}
        found.update(_guests(fs, guests))
        own = procfs.status(fs, "1").get("Cpus_allowed_list", "")
        return IsolationState(
            cpuset.parse(fs.read(ONLINE)),
            unavailable,
            cpuset.parse(own),
            found,
            policy.irqs,
            frozenset(self.immovable),
            self.ours,
        )

    def _interrupts(self, fs: KernelFS) -> Iterator[tuple[str, str]]:
        banned = self.irqbalance.banned()
        if banned is not None:
            yield BANNED, cpuset.text(banned)
        for number in sorted(filter(str.isdecimal, fs.names(INTERRUPTS)), key=int):
            cpus = fs.read_optional(f"{INTERRUPTS}/{number}/smp_affinity_list")
            if cpus is not None:
                yield f"{IRQ}{number}", cpus


def _masks(fs: KernelFS) -> dict[str, str]:
    masks = {name: fs.read_optional(file) for name, file in MASKS.items()}
    return {name: cpuset.text(cpuset.parse_mask(one)) for name, one in masks.items() if one}


def _units(fs: KernelFS) -> tuple[str, Values]:
    why = unit_cpus.unavailable(fs)
    if why:
        return why, {}
    try:
        told = unit_cpus.read(UNITS)
    except (ToolError, ValueError) as error:
        return f"{UNANSWERED}{error}", {}
    return "", {unit + UNIT: unit_value(fs, unit, cpus) for unit, cpus in told.items() if unit}


def unit_value(fs: KernelFS, unit: str, cpus: str) -> str:
    """A unit's CPUs with a mark where they are a drop-in's that lasts until the next boot."""
    runtime = RUNTIME if unit_cpus.is_runtime(fs, unit) else ""
    return f"{cpus} {runtime}".strip()


def _guests(fs: KernelFS, settings: Iterable[str]) -> dict[str, str]:
    found = {name: _affinity(fs, name) for name in settings}
    return {name: cpus for name, cpus in found.items() if cpus}


def _affinity(fs: KernelFS, setting: str) -> str:
    """Where a guest's main thread may run, marked where others may not; "" for one that ended."""
    threads = _threads(fs, setting)
    main = next(iter(threads.values()), "")
    return f"{main} {SEVERAL}" if set(threads.values()) - {main} else main


def _threads(fs: KernelFS, setting: str) -> Mapping[int, str]:
    """Where each thread of a guest's process may run, the main one's first."""
    pid, start = _process(setting)
    if not pid or procfs.start_time(pid) != start:
        return {}
    numbers = sorted(map(int, fs.names(f"/proc/{pid}/task")), key=lambda one: (one != pid, one))
    found = ((one, qemu_threads.allowed(fs, pid, one)) for one in numbers)
    return {one: cpus for one, cpus in found if cpus}


class HostWriter(Writer):
    """Writes each kind of setting in its own way."""

    def __init__(self, reader: HostReader) -> None:
        self._reader = reader

    def current(self, fs: KernelFS, change: Change) -> object:
        """See `Writer`."""
        name = change.setting
        if name.endswith(UNIT):
            known = self._reader.units.pop(name, None)  # systemctl takes long
            return self._unit(fs, name[: -len(UNIT)]) if known is None else known
        if name in MASKS:
            return cpuset.text(cpuset.parse_mask(fs.read(MASKS[name])))
        if name == BANNED:
            return cpuset.text(self._reader.irqbalance.banned() or ())
        if name.startswith(GUEST):
            return _affinity(fs, name)
        return fs.read(_irq_file(name))

    @staticmethod
    def _unit(fs: KernelFS, unit: str) -> str:
        try:
            return unit_value(fs, unit, unit_cpus.read([unit])[unit])
        except (ToolError, KeyError, ValueError) as error:
            raise NotDone(unit, f"systemctl show {unit}: {error}") from error

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """See `Writer`."""
        name, value = change.setting, str(change.after)
        if name.endswith(UNIT):
            self._set_unit(fs, name[: -len(UNIT)], value)
        elif name in MASKS:
            fs.write(MASKS[name], mask(value))
        elif name == BANNED:
            self._reader.irqbalance.ban("" if _bans_by_itself(fs, value) else value)
        elif name.startswith(GUEST):
            threads = _threads(fs, name)
            main = next(iter(threads.values()), "")
            same = (one for one, cpus in threads.items() if cpus == main)
            qemu_threads.confine(same, value.partition(" ")[0])
        else:
            self._move(fs, name, value)
        return ""

    @staticmethod
    def _set_unit(fs: KernelFS, unit: str, value: str) -> None:
        cpus = value.replace(RUNTIME, "").strip()
        try:
            unit_cpus.write(fs, unit, cpus, RUNTIME in value)
        except ToolError as error:
            raise NotDone(unit, f"systemctl set-property {unit}: {error}", value) from error

    def _move(self, fs: KernelFS, name: str, value: str) -> None:
        try:
            fs.write(_irq_file(name), value)
        except KernelFileError as error:
            if error.code not in NEVER_MOVED:
                raise
            self._reader.immovable.add(name)
            raise CannotChange(error.path, error.reason, value) from error

    def took(self, change: Change, now: object) -> bool:
        """irqbalance takes what it is told at its next round; threads of a guest's owner stay."""
        if change.setting == BANNED:
            return True
        if change.setting.startswith(GUEST):
            return str(now).partition(" ")[0] == str(change.after).partition(" ")[0]
        return now == change.after


def _bans_by_itself(fs: KernelFS, cpus: str) -> bool:
    """Whether irqbalance keeps off these CPUs untold: it does where the kernel isolates them."""
    folder = "/sys/devices/system/cpu"
    lists = [fs.read_optional(f"{folder}/{name}") or "" for name in ("isolated", "nohz_full")]
    return cpuset.parse(cpus) == frozenset().union(*map(cpuset.parse_or_null, lists))


def _irq_file(setting: str) -> str:
    return f"{INTERRUPTS}/{setting[len(IRQ) :]}/smp_affinity_list"


def mask(cpus: str) -> str:
    """A list as the kernel's mask: groups of eight digits."""
    digits = f"{sum(1 << cpu for cpu in cpuset.parse(cpus)):x}"
    groups = range(len(digits), 0, -8)
    return ",".join(reversed([digits[max(0, end - 8) : end] for end in groups]))
