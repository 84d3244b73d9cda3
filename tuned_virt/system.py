"""Modules and hot-plugged memory: what TuneD has no fitting plugin for.

TuneD's `modules` plugin reloads a module (and so takes vhost_net from running guests) or leaves the
loading to others; its `sysfs` plugin cannot tell whether the distribution has rules of its own.
Sources: the kernel's Documentation/admin-guide/mm/memory-hotplug.rst (auto_online_blocks); the
guide's chapter 5 (vhost-net).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tuned_virt import options as opt
from tuned_virt.engine import Tuner
from tuned_virt.kernelfs import KernelFileError, KernelFS
from tuned_virt.options import BadOptions, Choice, Described, OptionError
from tuned_virt.plan import Change, Plan, Values

ONLINE = "memory_auto_online"
ONLINE_FILE = "/sys/devices/system/memory/auto_online_blocks"
ONLINE_WORDS = Choice(("auto", "offline", "online", "online_kernel", "online_movable"))

UDEV_FOLDERS = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)

LOADED = "loaded"
ABSENT = "absent"

OPTIONS: Mapping[str, Described] = MappingProxyType(
    {
        "load_modules": Described(
            "kernel modules to have loaded, separated by commas or spaces; unloaded again at off if"
            " nothing uses them"
        ),
        ONLINE: Described(
            "what becomes of hot-plugged memory: offline, online, online_kernel, online_movable;"
            " auto: online, unless the distribution's udev rules or the kernel command line decide,"
            " and never on s390x"
        ),
        "observe": opt.OBSERVE,
    }
)


@dataclass(frozen=True)
class SystemPolicy:
    """Modules to have, and the word for auto_online_blocks ("" leaves it alone)."""

    modules: tuple[str, ...] = ()
    memory_auto_online: str = ""


@dataclass(frozen=True)
class SystemState:
    """`values` by setting ("module NAME" → loaded or absent; memory_auto_online → its word).

    `available` are the absent modules that this kernel could load; `users` counts what uses a
    loaded one; `online_rule` names the udev rule file that decides on hot-plugged memory, if any.
    """

    values: Values
    available: frozenset[str] = frozenset()
    users: Mapping[str, int] = field(default_factory=dict)
    machine: str = ""
    online_rule: str = ""


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
    asked: dict[str, str] = {}
    notes = []
    for module in policy.modules:
        if module in state.available or state.values.get(_key(module)) == LOADED:
            asked[_key(module)] = LOADED
        else:
            notes.append(f"module {module} is not loaded: this kernel does not offer it")
    word, note = _online_word(policy, state, originals)
    if word:
        asked[ONLINE] = word
    if note:
        notes.append(note)
    targets = {
        **{name: value for name, value in originals.items() if name in state.values},
        **asked,
    }
    pending = {
        name: f"in use by {state.users[name]}"
        for name, value in targets.items()
        if value == ABSENT and state.users.get(name, 0) > 0
    }
    return Plan(
        changes=tuple(
            Change(name, _path(name), state.values[name], value, _why(name, asked))
            for name, value in targets.items()
            if state.values[name] != value and name not in pending
        ),
        originals={name: state.values[name] for name in asked},
        wanted=asked,
        pending=pending,
        notes=tuple(notes),
    )


def _online_word(policy: SystemPolicy, state: SystemState, originals: Values) -> tuple[str, str]:
    """The word to set ("" for none), and what to say."""
    word = policy.memory_auto_online
    if word and ONLINE not in state.values:
        return "", "this kernel has no memory hotplug"
    if word != "auto":
        return word, ""
    before = originals.get(ONLINE, state.values[ONLINE])
    if state.machine == "s390x":
        return "", "hot-plugged memory is left alone: on s390x it is standby memory of the machine"
    if state.online_rule:
        return "", f"hot-plugged memory is left to {state.online_rule}"
    if before != "offline":
        return "", f"hot-plugged memory comes {before} already"
    return "online", ""


def _why(name: str, asked: Values) -> str:
    return "asked for" if name in asked else "as it was before"


def _key(module: str) -> str:
    return f"module {module}"


def _path(name: str) -> str:
    return ONLINE_FILE if name == ONLINE else f"/sys/module/{name.split()[1]}"


def online_rule(fs: KernelFS) -> str:
    """Path of the first udev rule file that brings hot-plugged memory online itself, or ""."""
    for folder in UDEV_FOLDERS:
        for path in fs.glob(f"{folder}/*.rules"):
            text = re.sub(r"^\s*#.*$", "", fs.read_optional(path) or "", flags=re.MULTILINE)
            if re.search(r'SUBSYSTEM[!=]=\s*"memory"', text) and re.search(
                r'ATTR\{state\}\s*=\s*"', text
            ):
                return path
    return ""


def loadable(fs: KernelFS, modules: set[str], release: str) -> frozenset[str]:
    """Those of the modules that `modprobe` would find for a kernel release (modules.dep(5))."""
    text = fs.read_optional(f"/lib/modules/{release}/modules.dep") or ""
    names = re.findall(r"^(?:\S*/)?([^/\s]+?)\.ko(?:\.\w+)?:", text, re.MULTILINE)
    return frozenset(modules & {name.replace("-", "_") for name in names})


class SystemTuner(Tuner[SystemPolicy, SystemState]):
    """Modules and hot-plugged memory, as the plugin `virt_system` sets them."""

    name = "virt_system"
    options = OPTIONS

    def parse(self, options: Mapping[str, str]) -> SystemPolicy:
        """See `parse`."""
        return parse(options)

    def read(self, fs: KernelFS, policy: SystemPolicy, originals: Values) -> SystemState:
        """The named modules and the fate of hot-plugged memory."""
        kept = {name.split()[1] for name in originals if name.startswith("module ")}
        modules = kept | set(policy.modules)
        loaded = {module for module in modules if fs.exists(f"/sys/module/{module}")}
        values = {_key(module): LOADED if module in loaded else ABSENT for module in modules}
        online = fs.read_optional(ONLINE_FILE)
        if online is not None:
            values[ONLINE] = online
        absent = modules - loaded
        return SystemState(
            values=values,
            available=loadable(fs, absent, os.uname().release) if absent else frozenset(),
            users={_key(m): fs.read_number(f"/sys/module/{m}/refcnt") for m in loaded},
            machine=os.uname().machine,
            online_rule=online_rule(fs) if policy.memory_auto_online == "auto" else "",
        )

    def decide(self, policy: SystemPolicy, state: SystemState, originals: Values) -> Plan:
        """See `decide`."""
        return decide(policy, state, originals)

    def values(self, state: SystemState) -> Values:
        """The settings' values."""
        return state.values

    def current(self, fs: KernelFS, change: Change) -> str:
        """loaded or absent for a module, else the file's word."""
        if change.setting == ONLINE:
            return super().current(fs, change)
        return LOADED if fs.exists(change.path) else ABSENT

    def write(self, fs: KernelFS, change: Change) -> None:
        """modprobe(8) for a module, else a write."""
        if change.setting == ONLINE:
            return super().write(fs, change)
        flags = [] if change.after == LOADED else ["--remove"]
        module = change.path.rpartition("/")[2]
        try:
            subprocess.run(
                ["modprobe", "--quiet", *flags, "--", module],
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise KernelFileError(change.path, f"modprobe: {error}", change.after) from error
