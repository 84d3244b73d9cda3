# SPDX-License-Identifier: GPL-2.0-or-later
"""Where TuneD's plugins do something else than write kernel files, and what of it can be told."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from tuned import consts
from tuned.utils.commands import commands

from tuned_virt.core.preview import PreviewRemark, Reading, known
from tuned_virt.tuned_api.preview.modifiers import Modifiers
from tuned_virt.tuned_api.preview.shadow import NOT_RUN, Shadow, reading

LATENCY = consts.PATH_CPU_DMA_LATENCY
BOOT = consts.BOOT_CMDLINE_FILE

REQUESTS: Mapping[str, str] = {LATENCY: "none", BOOT: ""}
"""No values of the kernel's but requests of TuneD's, and what each is without one."""

CONSTRUCTED = frozenset({"bootloader", "scheduler"})
"""Plugins that are asked in their own way here."""


def request(path: str, active: str | None) -> Reading:
    """A request as it is now; `active` is the active profile's."""
    if path == LATENCY:
        return known(REQUESTS[path] if active is None else active)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.findall(rf'^{consts.BOOT_CMDLINE_TUNED_VAR}="(.*)"$', file.read(), re.M)
    except FileNotFoundError:
        return known("")
    except OSError:
        return reading(path)
    return known(found[-1] if found else "")


# --- plugins that write kernel files --------------------------------------------------------------


def record_context(plugin: Any, shadow: Shadow, modifiers: Modifiers) -> None:
    """Have a plugin's writes tell the option and device that they are for."""
    own = plugin._process_assignment_modifiers
    plugin._process_assignment_modifiers = lambda new, current: modifiers(own, new, current)
    for name, has_device in (
        ("_execute_device_command", True),
        ("_execute_non_device_command", False),
    ):
        setattr(plugin, name, _telling(getattr(plugin, name), has_device, shadow))
    if hasattr(plugin, "_set_latency"):
        plugin._has_pm_qos = os.path.exists(LATENCY)
        plugin._set_latency = lambda latency: _set_latency(plugin, latency, shadow)
    if hasattr(plugin, "_dirty_option"):
        plugin._dirty_option = _dirty_option


def _telling(method: Callable[..., Any], has_device: bool, shadow: Shadow) -> Callable[..., Any]:
    def execute(instance: Any, command: Mapping[str, Any], *rest: Any) -> Any:
        shadow.context.option = command["name"]
        shadow.context.device = str(rest[0]) if has_device else ""
        try:
            return method(instance, command, *rest)
        finally:
            shadow.context.option = shadow.context.device = ""

    return execute


def _set_latency(plugin: Any, latency: Any, shadow: Shadow) -> None:
    """The limit of C-states' latency, which TuneD holds by an open file."""
    value, skip = plugin._parse_latency(latency)
    if skip or not plugin._has_pm_qos:
        return
    shadow.context.option = "force_latency"
    if value is None:
        shadow.note(LATENCY, str(latency), refused=f"TuneD cannot evaluate {latency}")
    else:
        shadow.note(LATENCY, str(value))
    shadow.context.option = ""


def _dirty_option(
    option: str,
    _counterpart: str,
    valid: Callable[[str, int], bool],
    enabling: bool,
    value: Any,
    _verify: bool,
) -> None:
    """TuneD's, without what it keeps in its memory."""
    if enabling and re.fullmatch(r"\s*[+-]?\d+\s*", str(value)) and valid(option, int(value)):
        commands().write_to_file(f"/proc/sys/vm/{option}", value)


# --- plugins with a way of their own --------------------------------------------------------------


def apply_scheduler(plugin: Any, instance: Any, shadow: Shadow) -> list[PreviewRemark]:
    """The kernel's knobs; which processes and interrupts would move is not known."""
    knobs = {name for name, command in plugin._commands.items() if not command.get("custom")}
    told = {name: text for name, text in instance.options.items() if text is not None}
    defaults = plugin._get_config_options()
    rest = [name for name in told if name not in knobs and told[name] != defaults.get(name)]
    wanted = told.keys() & knobs
    remarks = []
    if wanted and os.geteuid() != 0:
        reason = f"only root can read where the kernel has {', '.join(sorted(wanted))}"
        remarks.append(PreviewRemark("scheduler", "", reason))
    else:
        for name in plugin._commands:
            if name in wanted:
                text = plugin._variables.expand(told[name])
                plugin._execute_non_device_command(instance, plugin._commands[name], text)
    if rest:
        reason = f"which processes and interrupts it moves: {', '.join(rest)}"
        remarks.append(PreviewRemark("scheduler", "", reason))
    return remarks


def apply_bootloader(plugin: Any, instance: Any, shadow: Shadow) -> list[PreviewRemark]:
    """Kernel arguments of the next boot."""
    options = {name: text for name, text in instance.options.items() if text is not None}
    cmdline = options.pop("cmdline", None)
    remarks = []
    if cmdline is not None:
        text = str(plugin._variables.expand(commands().unquote(cmdline)))
        program = NOT_RUN.search(text)
        unknown = f"TuneD runs «{program[1]}» for it, which a preview does not" if program else ""
        if not unknown and hasattr(plugin, "_get_appended_rpm_ostree_kargs"):
            text, unknown = _for_rpm_ostree(text)
        shadow.context.option = "cmdline"
        shadow.note(BOOT, text, unknown=unknown)
    if options:
        reason = f"what it does to the boot loader's files: {', '.join(sorted(options))}"
        remarks.append(PreviewRemark("bootloader", "", reason))
    return remarks


def _for_rpm_ostree(text: str) -> tuple[str, str]:
    """Of arguments those that TuneD 2.26 and later adds with rpm-ostree, which are those that are
    not there without it; and why that is not known."""
    if shutil.which("rpm-ostree") is None:
        return text, ""
    code, out = commands().execute(["rpm-ostree", "kargs"])
    if code != 0:
        return text, "rpm-ostree does not tell the arguments that are there"
    there, now = out.split(), request(BOOT, None)
    for argument in (now.value or "").split():
        if argument in there:
            there.remove(argument)
    return " ".join(one for one in text.split() if one not in there), ""


APPLIED: Mapping[str, Callable[[Any, Any, Shadow], list[PreviewRemark]]] = {
    "bootloader": apply_bootloader,
    "scheduler": apply_scheduler,
}


def reason(unit: Any) -> str:
    """Why it is not known what a section would change, with what it asks for."""
    options = {name: text for name, text in unit.options.items() if name != "priority"}
    if unit.type == "script":
        scripts = options.get("script") or []
        return f"TuneD runs {', '.join(scripts)}, which a preview does not"
    asked = ", ".join(f"{name}={text}" for name, text in options.items())
    return f"tuned-virt does not know what this plugin changes{f': {asked}' if asked else ''}"
