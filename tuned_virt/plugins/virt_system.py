# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules and hot-plugged memory: what TuneD has no fitting plugin for.

TuneD's `modules` plugin reloads a module (and so takes vhost_net from running guests) or leaves the
loading to others; its `sysfs` plugin cannot tell whether the distribution has rules of its own.
Sources: the kernel's Documentation/admin-guide/mm/memory-hotplug.rst (auto_online_blocks); the
guide's chapter 5 (vhost-net).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple, Union

from tuned_virt.core import options as opt
from tuned_virt.core.options import BadOptions, OneOf, OptionError, OptionSpec
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.tuner import Tuner, Writer
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import commands, cpuset, timeouts, udev_rules
from tuned_virt.kernel.commands import ToolError
from tuned_virt.kernel.files import KernelFS, NotDone

ONLINE = "memory_auto_online"
ONLINE_FILE = "/sys/devices/system/memory/auto_online_blocks"
CPUS = "/sys/devices/system/cpu"
FILES = ("present", "online")
ONLINE_WORDS = OneOf(("auto", "offline", "online", "online_kernel", "online_movable"))


class ModuleSetting(NamedTuple):
    """Whether a kernel module is loaded."""

    name: str

    def __str__(self) -> str:
        return f"module {self.name}"

    @property
    def path(self) -> str:
        """Its folder in sysfs, while it is loaded."""
        return f"/sys/module/{self.name}"


class OnlineSetting(NamedTuple):
    """What becomes of hot-plugged memory; its value is the kernel's word."""

    path: str = ONLINE_FILE

    def __str__(self) -> str:
        return ONLINE


class Presence(str, Enum):
    """A module's value."""

    LOADED = "loaded"
    ABSENT = "absent"

    def __str__(self) -> str:
        return self.value


Setting = Union[ModuleSetting, OnlineSetting]
Value = Union[Presence, str]

AUTO_ONLINE = OnlineSetting()


def setting(text: str) -> Setting:
    """A setting as the originals have it in text."""
    return AUTO_ONLINE if text == ONLINE else ModuleSetting(text.partition(" ")[2])


def value(of: Setting, text: str) -> Value:
    """Its value as the originals have it in text; a module of which they say anything but absent
    stays."""
    if isinstance(of, OnlineSetting):
        return text
    return Presence.ABSENT if text == Presence.ABSENT.value else Presence.LOADED


OPTIONS: Mapping[str, OptionSpec] = {
    "load_modules": OptionSpec(
        "kernel modules to load, separated by commas or spaces; unloaded again at off if"
        " nothing uses them"
    ),
    ONLINE: OptionSpec(
        "what to do with hot-plugged memory: offline, online, online_kernel, online_movable;"
        " auto: online, unless the distribution's udev rules or the kernel command line decide,"
        " and never on s390x"
    ),
    "observe": opt.OBSERVE,
}


@dataclass(frozen=True)
class SystemPolicy:
    """Modules to have, and the word for auto_online_blocks ("" leaves it alone)."""

    modules: tuple[str, ...] = ()
    memory_auto_online: str = ""


@dataclass(frozen=True)
class Module:
    """A kernel module: whether it is loaded, how many use it, and which modules are among them."""

    loaded: bool
    users: int = 0
    holders: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SystemState:
    """The modules by name, and the word of auto_online_blocks ("" without memory hotplug).

    `needs` has, for each module that this kernel can load, those it needs, nearest first
    (modules.dep(5)); `online_rule` names the udev rule file that decides on hot-plugged memory;
    `offline_cpus` are CPUs that are there and that no rule brings online.
    """

    modules: Mapping[str, Module] = field(default_factory=dict)
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    online: str = ""
    machine: str = ""
    online_rule: str = ""
    offline_cpus: str = ""

    @property
    def values(self) -> dict[Setting, Value]:
        """Value by setting."""
        found: dict[Setting, Value] = {
            ModuleSetting(name): Presence.LOADED if module.loaded else Presence.ABSENT
            for name, module in self.modules.items()
        }
        return {**found, AUTO_ONLINE: self.online} if self.online else found


def parse(options: Mapping[str, str]) -> SystemPolicy:
    """The policy of a profile's options. Raises BadOptions."""
    errors = []
    given = opt.given(options)
    modules = tuple(given.get("load_modules", "").replace(",", " ").split())
    for module in modules:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", module):
            errors.append(OptionError("load_modules", module, "names of kernel modules"))
    online = given.get(ONLINE, "")
    try:
        online = ONLINE_WORDS.parse(ONLINE, online) if online else ""
    except OptionError as error:
        errors.append(error)
    if errors:
        raise BadOptions(errors)
    return SystemPolicy(tuple(module.replace("-", "_") for module in modules), online)


def decide(policy: SystemPolicy, state: SystemState, originals: Values) -> Plan:
    """Load what is asked for and absent; set hot-plugged memory's fate; put the rest back."""
    kept = {setting(name): text for name, text in originals.items()}
    asked, notes = _asked_modules(policy, state)
    word, note = _online_word(policy, state, kept.get(AUTO_ONLINE, state.online))
    if word:
        asked[AUTO_ONLINE] = word
    now = state.values
    back = {one: value(one, text) for one, text in kept.items() if one in now}
    targets = {**back, **asked}
    pending = _in_use(state, [one for one, to in targets.items() if to is Presence.ABSENT])
    return Plan(
        changes=tuple(
            Change(str(one), one.path, str(now[one]), str(to), _why(one, asked))
            for one, to in targets.items()
            if now[one] != to and one not in pending
        ),
        originals={str(one): str(now[one]) for one in asked},
        wanted={str(one): str(to) for one, to in asked.items()},
        pending={str(one): why for one, why in pending.items()},
        notes=(*notes, *([note] if note else []), *_cpu_notes(state)),
    )


def _cpu_notes(state: SystemState) -> Iterator[str]:
    """CPUs that were plugged in, and that the kernel leaves offline."""
    if state.offline_cpus:
        yield (
            f"CPUs {state.offline_cpus} are offline, and no udev rule brings hot-plugged CPUs"
            " online: write 1 to /sys/devices/system/cpu/cpuN/online, or use virsh setvcpus --guest"
        )


def _asked_modules(
    policy: SystemPolicy, state: SystemState
) -> tuple[dict[Setting, Value], tuple[str, ...]]:
    """Modules to have, each before those it needs, which modprobe loads along with it."""
    asked: dict[Setting, Value] = {}
    notes = []
    for name in policy.modules:
        if state.modules[name].loaded or name in state.needs:
            needed = map(ModuleSetting, (name, *state.needs.get(name, ())))
            asked.update(dict.fromkeys(needed, Presence.LOADED))
        else:
            notes.append(f"module {name} is not available in this kernel")
    return asked, tuple(notes)


def _in_use(state: SystemState, unloading: Iterable[Setting]) -> dict[Setting, str]:
    """Modules that cannot be unloaded, in the order in which the others are."""
    pending: dict[Setting, str] = {}
    gone: set[str] = set()
    for one in unloading:
        if isinstance(one, ModuleSetting):
            module = state.modules[one.name]
            users = module.users - len(module.holders & gone)
            if module.loaded and users > 0:
                pending[one] = f"in use by {users}"
            else:
                gone.add(one.name)
    return pending


def _online_word(policy: SystemPolicy, state: SystemState, before: str) -> tuple[str, str]:
    """The word to set ("" for none), and what to say."""
    word = policy.memory_auto_online
    if word and not state.online:
        return "", "this kernel has no memory hotplug"
    if word != "auto":
        return word, ""
    if state.machine == "s390x":
        return "", "hot-plugged memory is not changed: on s390x it is standby memory of the machine"
    if state.online_rule:
        return "", f"hot-plugged memory is handled by {state.online_rule}"
    if before != "offline":
        return "", f"hot-plugged memory is already brought {before}"
    return "online", ""


def _why(one: Setting, asked: Collection[Setting]) -> str:
    return "set by the profile" if one in asked else "original value"


def online_rule(fs: KernelFS, machine: str = "", online: str = "") -> str:
    """Path of the first udev rule file that brings hot-plugged memory online itself, or "".

    With its conditions: Ubuntu's 40-vm-hotadd.rules does so under Hyper-V and Xen alone, others
    heed what the kernel does itself, which is `online` unless we set it.
    """
    block = {
        "SUBSYSTEM": "memory",
        "ACTION": "add",
        "KERNEL": "memory999",
        "DEVPATH": "/devices/system/memory/memory999",
    }
    above = {"auto_online_blocks": online} if online else {}
    return _rule(fs, udev_rules.NewDevice(block, {"state": "offline"}, machine, above), "state")


def offline_cpus(fs: KernelFS, machine: str = "") -> str:
    """CPUs that are there and not online, where no udev rule sees to that; "" for none.

    Threads that SMT control has switched off are not meant.
    """
    there, online = (cpuset.parse(fs.read_optional(f"{CPUS}/{name}") or "") for name in FILES)
    off = (fs.read_optional(f"{CPUS}/smt/control") or "").endswith("off")
    block = {
        "SUBSYSTEM": "cpu",
        "ACTION": "add",
        "KERNEL": "cpu999",
        "DEVPATH": "/devices/system/cpu/cpu999",
    }
    device = udev_rules.NewDevice(block, {"online": "0"}, machine)
    if off or not there - online or _rule(fs, device, "online"):
        return ""
    return cpuset.text(there - online)


def _rule(fs: KernelFS, device: udev_rules.NewDevice, attribute: str) -> str:
    for path, text in udev_rules.files(fs):
        word = device.keys["SUBSYSTEM"]
        if word in text and udev_rules.sets(fs, text, device, attribute):
            return path
    return ""


def needs(fs: KernelFS, release: str, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Of the named modules those that a kernel release offers, and what each needs, nearest first.

    From modules.dep(5), which is long: only the lines asked for are taken apart.
    """
    text = fs.read_optional(f"/lib/modules/{release}/modules.dep") or ""
    found = {}
    for name in names:
        file = name.replace("_", "[-_]")
        line = re.search(rf"^(?:\S*/)?{file}\.ko[^:\s]*:(.*)$", text, re.MULTILINE)
        if line:
            found[name] = tuple(map(_module_name, line[1].split()))
    return found


def _module_name(file: str) -> str:
    return file.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def module(fs: KernelFS, name: str) -> Module:
    """A module as sysfs shows it; one that is built in is loaded and nobody counts its users."""
    folder = f"/sys/module/{name}"
    return Module(
        loaded=fs.exists(folder),
        users=fs.read_number(f"{folder}/refcnt"),
        holders=frozenset(path.rpartition("/")[2] for path in fs.glob(f"{folder}/holders/*")),
    )


class SystemWriter(Writer):
    """Modules by modprobe and rmmod, hot-plugged memory by its file."""

    def current(self, fs: KernelFS, change: Change) -> object:
        """loaded or absent for a module, else the file's word."""
        if isinstance(setting(change.setting), OnlineSetting):
            return super().current(fs, change)
        return str(Presence.LOADED if fs.exists(change.path) else Presence.ABSENT)

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """A module is loaded with what it needs, but unloaded alone; the rest is a write."""
        one = setting(change.setting)
        if isinstance(one, OnlineSetting):
            return super().write(fs, change, abandoned)
        loads = change.after == Presence.LOADED.value
        tool = ("modprobe", "--quiet") if loads else ("rmmod",)
        try:
            commands.run(*tool, "--", one.name, seconds=timeouts.PROGRAM)
        except ToolError as error:
            raise NotDone(change.path, str(error), str(change.after)) from error
        return ""


class SystemTuner(Tuner[SystemPolicy, SystemState]):
    """Modules and hot-plugged memory, as the plugin `virt_system` sets them."""

    name = "virt_system"
    options = OPTIONS
    parse = staticmethod(parse)
    decide = staticmethod(decide)
    writer = SystemWriter()

    def read(self, fs: KernelFS, policy: SystemPolicy, originals: Values) -> SystemState:
        """The named modules and the fate of hot-plugged memory."""
        found = map(setting, originals)
        kept = {one.name for one in found if isinstance(one, ModuleSetting)}
        names = {*policy.modules, *kept}
        wanted: dict[str, tuple[str, ...]] = {}
        if kept or any(not fs.exists(f"/sys/module/{name}") for name in policy.modules):
            wanted = needs(fs, os.uname().release, policy.modules)
        names.update(*wanted.values())
        machine, hot_plug = os.uname().machine, policy.memory_auto_online == "auto"
        online = fs.read_optional(ONLINE_FILE) or ""
        return SystemState(
            modules={name: module(fs, name) for name in sorted(names)},
            needs=wanted,
            online=online,
            machine=machine,
            online_rule=online_rule(fs, machine, originals.get(ONLINE, online)) if hot_plug else "",
            offline_cpus=offline_cpus(fs, machine) if hot_plug else "",
        )

    def files(self, policy: SystemPolicy, _settings: Values) -> Values:
        """That of hot-plugged memory, where a word for it is set."""
        word = policy.memory_auto_online
        return {ONLINE_FILE: word} if word not in ("", "auto") else {}

    def values(self, state: SystemState) -> Values:
        """The settings' values."""
        return {str(one): str(now) for one, now in state.values.items()}
