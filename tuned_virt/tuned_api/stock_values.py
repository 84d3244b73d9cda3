# SPDX-License-Identifier: GPL-2.0-or-later
"""What TuneD's own plugins set, value by value, read from the running daemon.

TuneD's verify logs no line for a value that a `>` or `<` already permits, for what this machine
does not have, for dirty pages in [vm] (2.25 and later), for C-states, and for sections whose plugin
it does not support here. What was asked for must not be passed over, so these lines are ours.
"""

from __future__ import annotations

import contextlib
import glob
import inspect
import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, cast

import tuned_virt
from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.overridden import AppliedSection
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel.files import AnyPath

DMA_LATENCY: AnyPath = "/dev/cpu_dma_latency"
INTEL_PSTATE: AnyPath = "/sys/devices/system/cpu/intel_pstate"
DIRTY: AnyPath = "/proc/sys/vm"

OURS = os.path.join(os.path.dirname(tuned_virt.__file__), "plugins")
"""The plugins of this package, one file or folder each."""

PSTATE_OPTIONS = ("min_perf_pct", "max_perf_pct", "no_turbo")
VERIFIED_BY_TUNED: Mapping[str, frozenset[str] | None] = {
    "bootloader": frozenset({"cmdline"}),
    "irq": frozenset({"affinity"}),
    "modules": None,
    "mounts": None,
    "scheduler": frozenset({"isolated_cores", "default_irq_smp_affinity"}),
    "script": None,
    "service": None,
    "systemd": frozenset({"cpu_affinity"}),
}
"""Options that are no plain values and that TuneD's own verify has lines for; None: all of them."""


Special = Callable[[Any, str, str], "Iterator[StockValue]"]
"""Reads an option of an instance: from what the profile says to its values."""


@dataclass(frozen=True)
class StockValue:
    """One value that a plugin of TuneD's own sets.

    wanted     the value, None where the machine has nothing that takes it
    found      what is there now, None where there is no such file
    original   what was there before TuneD, None where TuneD keeps none
    bound      "at least 4096" for a value that is only raised or lowered
    ours       whether TuneD's verify has no line for it
    remark     why it is not compared
    unreadable why what is there now cannot be read
    """

    section: str
    option: str
    device: str | None = None
    wanted: str | None = None
    found: str | None = None
    original: str | None = None
    bound: str = ""
    ours: bool = True
    remark: str = ""
    unreadable: str = ""

    @property
    def name(self) -> str:
        """The value for people."""
        on = f" of {self.device}" if self.device else ""
        return f"[{self.section}] {self.option}{on}"

    def finding(self) -> Finding:
        """Its line of verify, worded as TuneD words its own."""
        named = f"device {self.device}: '{self.option}'" if self.device else f"'{self.option}'"
        if self.remark:
            return Finding(Result.NOTE, f"{named}: {self.remark}")
        if self.unreadable:
            return Finding(Result.FAILED, f"{named}: cannot be read: {self.unreadable}")
        if self.wanted is None or self.found is None:
            return Finding(Result.MISSING, f"{named}: this machine does not have it")
        bound = f" ({self.bound})" if self.bound else ""
        if self.bound or self.found == self.wanted:
            return Finding(Result.PASSED, f"{named} = '{self.found}'{bound}")
        return Finding(Result.FAILED, f"{named} = '{self.found}', expected '{self.wanted}'")


# --- the running daemon ---------------------------------------------------------------------------


def caller(module: str) -> Any:
    """The object of TuneD's that has called this, several calls up; None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == module and "self" in frame.f_locals:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


def is_ours(instance: Any) -> bool:
    """Whether an instance is one of a plugin of this package."""
    return hasattr(instance.plugin, "tuner")


def speaks_for_all(manager: Any, instance: Any) -> bool:
    """Whether an instance is the first of ours in its profile."""
    ours = (one for one in manager.instances if is_ours(one))
    return next(ours, None) is instance


def findings(instance: Any) -> list[Finding]:
    """Lines for the values that TuneD's verify under way has none for, if `instance` gives them."""
    manager = caller("tuned.units.manager")
    if manager is None or not speaks_for_all(manager, instance):
        return []
    found = [one.finding() for one in values(manager.instances, all_of_them=False) if one.ours]
    return found + list(unloaded(manager, caller("tuned.daemon.daemon")))


def applied_sections() -> dict[str, AppliedSection] | None:
    """Sections of the profile that TuneD verifies now, by name; None outside of a verify."""
    manager, daemon = caller("tuned.units.manager"), caller("tuned.daemon.daemon")
    if manager is None or daemon is None:
        return None
    return {
        name: AppliedSection(unit.type, {k: str(v) for k, v in unit.options.items() if v})
        for name, unit in _applying(manager, daemon)
    }


def _applying(manager: Any, daemon: Any) -> Iterator[tuple[str, Any]]:
    """The merged profile's sections that are for this machine."""
    units: Mapping[str, Any] = getattr(getattr(daemon, "profile", None), "units", {})
    for name, unit in units.items():
        applies = manager._unit_matches_cpuinfo(unit) and manager._unit_matches_uname(unit)
        if unit.enabled and applies:
            yield name, unit


def unloaded(manager: Any, daemon: Any) -> Iterator[Finding]:
    """Values of sections whose plugin this TuneD could not load, or does not support here."""
    loaded = {instance.name for instance in manager.instances}
    for name, unit in _applying(manager, daemon):
        if name not in loaded:
            yield from _unloaded(name, unit)


def _unloaded(name: str, unit: Any) -> Iterator[Finding]:
    if any(os.path.exists(f"{OURS}/{name}") for name in (unit.type, f"{unit.type}.py")):
        text = f"'{unit.type}': TuneD could not load it, so [{name}] is not applied; see its log"
        yield Finding(Result.FAILED, text)
        return
    for option, value in unit.options.items():
        if value is not None:
            text = (
                f"'{option}' of [{name}]: TuneD's plugin {unit.type} does not support this machine"
            )
            yield Finding(Result.MISSING, text)


# --- values ---------------------------------------------------------------------------------------


def values(instances: list[Any], all_of_them: bool = True) -> Iterator[StockValue]:
    """What TuneD's own instances set; unless `all_of_them`, what they set is read where needed."""
    for instance in instances:
        if not is_ours(instance):
            yield from _of(instance, all_of_them)


def _of(instance: Any, all_of_them: bool) -> Iterator[StockValue]:
    defaults: Mapping[str, Any] = instance.plugin._get_config_options()
    for option, text in list(instance.options.items()):
        told = instance.plugin._variables.expand(text)
        if told is not None and str(text) != str(defaults.get(option)):
            yield from _option(instance, option, told, all_of_them)


def _option(instance: Any, option: str, text: str, all_of_them: bool) -> Iterator[StockValue]:
    plugin = instance.plugin
    special = _special(plugin.name, option)
    if special:
        try:
            yield from special(instance, option, text)
        except (OSError, struct.error) as error:
            yield StockValue(instance.name, option, unreadable=str(error))
    elif "set" in plugin._commands.get(option, {}):
        yield from _command(instance, option, text, all_of_them)
    elif not _verified_by_tuned(plugin.name, option):
        yield StockValue(instance.name, option, remark=f"{text}: TuneD does not verify this option")


def _special(plugin: str, option: str) -> Special | None:
    """What reads an option that is none of TuneD's commands."""
    if plugin == "vm" and option.startswith("dirty_"):
        return _dirty
    if plugin == "cpu" and option in PSTATE_OPTIONS:
        return _pstate
    if plugin == "cpu" and option == "force_latency":
        return _latency
    return {"sysctl": _sysctl, "sysfs": _sysfs}.get(plugin)


def _verified_by_tuned(plugin: str, option: str) -> bool:
    known = VERIFIED_BY_TUNED.get(plugin, frozenset())
    return known is None or option in known


def _bound(text: str, plugin: Any, found: str | None) -> str:
    """What a modifier permits, where the value that is there is within it."""
    if text[:1] not in (">", "<") or plugin._process_assignment_modifiers(text, found) is not None:
        return ""
    return f"at {'least' if text[0] == '>' else 'most'} {text[1:]}"


def _reader(plugin: Any, name: str) -> Callable[[str], str | None]:
    """A plugin's method, which TuneD 2.20 has beside the plugin."""
    found = getattr(plugin, name, None) or getattr(sys.modules[type(plugin).__module__], name)
    return cast("Callable[[str], str | None]", found)


def _sysctl(instance: Any, option: str, text: str) -> Iterator[StockValue]:
    found = _reader(instance.plugin, "_read_sysctl")(option)
    bound = _bound(text, instance.plugin, found)
    original = getattr(instance, "_sysctl_original", {}).get(option)
    yield StockValue(
        instance.name, option, None, text.lstrip("<>"), found, original, bound, bool(bound)
    )


def _sysfs(instance: Any, option: str, text: str) -> Iterator[StockValue]:
    paths, read = sorted(glob.glob(option)), _reader(instance.plugin, "_read_sysfs")
    if not paths:
        yield StockValue(instance.name, option)
    for path in paths:
        found = read(path)
        original = getattr(instance, "_sysfs_original", {}).get(path)
        yield StockValue(instance.name, path, None, text, found, original, ours=False)


def _dirty(instance: Any, option: str, text: str) -> Iterator[StockValue]:
    """Dirty pages in [vm]: of a ratio and its bytes, the one that is not in use is 0."""
    plugin, other = instance.plugin, option.replace("bytes", "ratio")
    name = other if text.strip().endswith("%") else option
    counterpart = (
        name.replace("ratio", "bytes") if "ratio" in name else name.replace("bytes", "ratio")
    )
    kept = [
        plugin._storage.get(plugin._storage_key(command_name=one)) for one in (name, counterpart)
    ]
    original = kept[0] if kept[0] is not None else "0" if kept[1] is not None else None
    found = _text(f"{DIRTY}/{name}")
    yield StockValue(instance.name, name, None, text.strip().rstrip("%"), found, original)


def _pstate(instance: Any, option: str, text: str) -> Iterator[StockValue]:
    plugin = instance.plugin
    if not (plugin._has_intel_pstate and instance._first_instance):
        yield StockValue(instance.name, option)
        return
    wanted = plugin._cmd.get_bool(text) if option == "no_turbo" else text
    original = getattr(plugin, f"_{option}_save", None)
    yield StockValue(
        instance.name, option, None, wanted, _text(f"{INTEL_PSTATE}/{option}"), original
    )


def _latency(instance: Any, option: str, text: str) -> Iterator[StockValue]:
    """The limit of C-states: TuneD holds it in a file, and the kernel says what holds in all."""
    plugin = instance.plugin
    wanted = plugin._latency
    if wanted is None or not plugin._has_pm_qos or not instance._first_instance:
        yield StockValue(instance.name, option)
        return
    found = None
    with contextlib.suppress(FileNotFoundError), open(DMA_LATENCY, "rb") as file:
        [found] = struct.unpack("i", file.read(4))
    held = found is not None and found <= wanted
    bound = f"{text}: at most {wanted} us" if held else ""
    shown = None if found is None else str(found)
    yield StockValue(instance.name, option, None, str(wanted), shown, None, bound)


def _text(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


# --- options that TuneD's plugins read and write with commands ------------------------------------


def _command(instance: Any, option: str, text: str, all_of_them: bool) -> Iterator[StockValue]:
    command = instance.plugin._commands[option]
    if not command["per_device"]:
        yield _one(instance, command, text, None, all_of_them)
        return
    devices = sorted(instance.processed_devices)
    if not devices:
        yield StockValue(instance.name, option)
    for device in devices:
        yield _one(instance, command, text, device, all_of_them)


def _one(
    instance: Any, command: Mapping[str, Any], text: str, device: str | None, all_of_them: bool
) -> StockValue:
    plugin, option = instance.plugin, command["name"]
    found: str | None = None
    wanted: str | None = text
    bound = ""
    if all_of_them or text[:1] in (">", "<"):
        found = _current(instance, command, device)
        bound = _bound(text, plugin, found)
    if not bound:
        wanted = _called(command["set"], text.lstrip("<>"), device, instance)
    original = plugin._storage_get(instance, command, device)
    ours = bool(bound) or wanted is None
    return StockValue(instance.name, option, device, wanted, found, original, bound, ours)


def _called(setter: Any, text: str, device: str | None, instance: Any) -> str | None:
    """What a setter of any of TuneD's generations would write; nothing is written."""
    given = {"device": device, "instance": instance, "sim": True, "remove": False}
    names = inspect.signature(setter).parameters
    made = setter(text, **{name: value for name, value in given.items() if name in names})
    return None if made is None else str(made)


def _current(instance: Any, command: Mapping[str, Any], device: str | None) -> str | None:
    plugin = instance.plugin
    takes = inspect.signature(plugin._get_current_value).parameters
    first = (instance,) if "instance" in takes else ()
    found = plugin._get_current_value(*first, command, device, ignore_missing=True)
    return None if found is None else str(found)
