# SPDX-License-Identifier: GPL-2.0-or-later
"""A plugin in the style of TuneD 2.25 that uses every kind of command; its "kernel" is a folder."""

from __future__ import annotations

import time
from pathlib import Path

from tuned.plugins import decorators, hotplug

from tuned_virt.tuned_api import commands

KERNEL = Path("/run/conformance")


class Device:
    """All that TuneD reads of a device."""

    def __init__(self, name):
        self.sys_name = name


class Inherited:
    """Commands that the plugin inherits, which stock TuneD ignores in silence."""

    @decorators.command_set("level")
    def _set_level(self, value, instance, sim, remove):
        return self._write(instance, "level", value, sim)

    @decorators.command_get("level")
    def _get_level(self, instance, ignore_missing=False):
        return self._read(instance, "level")

    def _write(self, instance, name, value, sim):
        assert instance.name, "the instance reaches every command"
        if value == "explode":
            raise RuntimeError("a setter that raises")
        if not sim:
            with (KERNEL / "writes").open("a") as writes:
                writes.write(f"{name}={value}\n")
            (KERNEL / name).write_text(value)
        return value

    def _read(self, instance, name):
        assert instance.name, "the instance reaches every command"
        file = KERNEL / name
        return file.read_text() if file.exists() else None


class ConformancePlugin(commands.CommandPlugin, Inherited, hotplug.Plugin):
    """Global and per-device commands, set, get and custom."""

    @classmethod
    def _get_config_options(cls):
        return dict.fromkeys(("level", "absent", "many", "custom", "weight", "tag"))

    def _init_devices(self):
        super()._init_devices()
        self._devices_supported = True
        self._free_devices = {file.name for file in (KERNEL / "devices").iterdir()}
        self._assigned_devices = set()

    def _instance_init(self, instance):
        instance._has_static_tuning = True
        instance._has_dynamic_tuning = False

    def _instance_cleanup(self, instance):
        pass

    @decorators.command_set("absent")
    def _set_absent(self, value, instance, sim, remove):
        return value if sim else None

    @decorators.command_get("absent")
    def _get_absent(self, instance, ignore_missing=False):
        return None

    @decorators.command_set("many", priority=5)
    def _set_many(self, value, instance, sim, remove):
        """Slow, so that a test can kill TuneD in the middle."""
        if not sim:
            for step in range(20):
                self._write(instance, "many", f"{value}-{step}", sim)
                time.sleep(0.05)
        return self._write(instance, "many", value, sim)

    @decorators.command_get("many")
    def _get_many(self, instance, ignore_missing=False):
        return self._read(instance, "many")

    @decorators.command_custom("custom")
    def _custom(self, enabling, value, verify, ignore_missing, instance):
        if verify:
            return self._verify_value(
                "custom", value, self._read(instance, "custom"), ignore_missing
            )
        if enabling:
            self._storage_set(instance, self._commands["custom"], self._read(instance, "custom"))
            self._write(instance, "custom", value, False)
        else:
            old = self._storage_get(instance, self._commands["custom"])
            self._write(instance, "custom", old, False)
            self._storage_unset(instance, self._commands["custom"])
        return None

    @decorators.command_set("weight", per_device=True)
    def _set_weight(self, value, device, instance, sim, remove):
        return self._write(instance, f"devices/{device}", value, sim)

    @decorators.command_get("weight")
    def _get_weight(self, device, instance, ignore_missing=False):
        return self._read(instance, f"devices/{device}")

    @decorators.command_custom("tag", per_device=True)
    def _tag(self, enabling, value, device, verify, ignore_missing, instance):
        if verify:
            found = self._read(instance, f"tag-{device}")
            return self._verify_value("tag", value, found, ignore_missing, device)
        self._write(instance, f"tag-{device}", value or "", False)
        return None
