# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of a profile as plugins of the installed TuneD, which apply themselves to a shadow.

The steps are those of TuneD's own units.Manager, without its threads and without the plugins that
do more than write kernel files (see `special`).
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tuned import consts, hardware, monitors, plugins, storage, units
from tuned.plugins import base
from tuned.plugins.exceptions import NotSupportedPluginException

from tuned_virt.core.preview import PreviewRemark
from tuned_virt.tuned_api.common import TunerOptions
from tuned_virt.tuned_api.preview import special
from tuned_virt.tuned_api.preview.modifiers import Modifiers
from tuned_virt.tuned_api.preview.profile import MergedProfile
from tuned_virt.tuned_api.preview.shadow import Shadow

WRITERS = frozenset(
    ("acpi", "audio", "cpu", "disk", "scsi_host", "sysctl", "sysfs", "uncore", "usb", "video", "vm")
)
"""TuneD's plugins whose static tuning is writing kernel files, and nothing else."""


@dataclass
class PreviewedInstance:
    """One section's instance of a plugin; `broken` says why it cannot be followed."""

    instance: Any
    plugin: Any
    name: str
    type: str
    broken: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is of a plugin of this project."""
        return isinstance(self.plugin, TunerOptions)


class _Devices(hardware.Inventory):  # type: ignore[misc]
    """Udev's devices; nobody is told of those that come and go."""

    def __init__(self) -> None:
        super().__init__(set_receive_buffer_size=False)

    def subscribe(self, plugin: Any, subsystem: str, callback: Any) -> None:
        self._subscriptions.setdefault(subsystem, []).append((plugin, callback))

    def unsubscribe(self, plugin: Any) -> None:
        pass

    def start_processing_events(self) -> None:
        pass


class ProfileInstances:
    """All sections of a profile that are for this machine, in the order of applying."""

    def __init__(self, loaded: MergedProfile, shadow: Shadow, modifiers: Modifiers) -> None:
        self.loaded = loaded
        self.shadow = shadow
        self.not_known: list[PreviewRemark] = []
        self.refused: list[PreviewRemark] = []
        self._modifiers = modifiers
        self._keep_what_was_read(loaded.variables)
        devices = _Devices()
        self._repository = plugins.Repository(
            *(monitors.Repository(), storage.Factory(storage.PickleProvider()), devices),
            *(hardware.DeviceMatcher(), hardware.DeviceMatcherUdev()),
            *(plugins.instance.Factory(), loaded.config, loaded.variables),
        )
        self._manager = units.Manager(self._repository, None, 0, devices, loaded.config)
        with shadow.in_force():
            self.instances = list(self._create())
            for one in self.instances:
                self._initialize(one)

    def _create(self) -> Iterator[PreviewedInstance]:
        created: dict[str, Any] = {}
        for unit in sorted(self._matching(), key=self._priority):
            with self.shadow.acting(unit.name):
                if unit.type not in created:
                    created[unit.type] = self._plugin(unit.type, unit.name)
                if created[unit.type] is not None:
                    instance = self._instance(created[unit.type], unit)
                    yield PreviewedInstance(instance, created[unit.type], unit.name, unit.type)

    def _matching(self) -> Iterator[Any]:
        for unit in self.loaded.merged.units.values():
            if (
                unit.enabled
                and self._manager._unit_matches_cpuinfo(unit)
                and self._manager._unit_matches_uname(unit)
            ):
                yield unit

    def _priority(self, unit: Any) -> int:
        """As a section says it: an option like any other up to TuneD 2.22."""
        own = getattr(unit, "priority", None) or unit.options.pop("priority", None)
        default = consts.CFG_DEF_DEFAULT_INSTANCE_PRIORITY
        return int(own or self.loaded.config.get(consts.CFG_DEFAULT_INSTANCE_PRIORITY, default))

    def _plugin(self, name: str, section: str) -> Any:
        if name not in special.CONSTRUCTED | WRITERS and not _is_ours(name):
            reason = special.reason(self.loaded.merged.units[section])
            self.not_known.append(PreviewRemark(name, "", reason))
            return None
        try:
            return self._repository.create(name)
        except NotSupportedPluginException as error:
            reason = f"TuneD does not load this plugin here: {error}"
        except Exception as error:
            reason = f"TuneD cannot load this plugin: {error}"
        self.refused.append(PreviewRemark(name, "", reason))
        return None

    def _instance(self, plugin: Any, unit: Any) -> Any:
        known = inspect.signature(base.Plugin.create_instance).parameters
        priority = (self._priority(unit),) if "priority" in known else ()
        return plugin.create_instance(
            *(unit.name, *priority, unit.devices, unit.devices_udev_regex),
            *(unit.script_pre, unit.script_post, unit.options),
        )

    def _initialize(self, one: PreviewedInstance) -> None:
        """Devices of TuneD's own plugins: ours follow guests and disks from here on."""
        if one.ours or one.type not in WRITERS:
            return
        with self.shadow.acting(one.name):
            try:
                one.plugin.init_devices()
                one.plugin.assign_free_devices(one.instance)
                one.plugin.initialize_instance(one.instance)
            except Exception as error:
                one.broken = f"TuneD's plugin fails: {error}"

    def apply(self) -> None:
        """Have TuneD's own plugins write into the shadow what they would set."""
        with self.shadow.in_force():
            for one in self.instances:
                if not one.ours and not one.broken:
                    with self.shadow.acting(one.name):
                        self._apply(one)

    def _apply(self, one: PreviewedInstance) -> None:
        for script in filter(None, (one.instance.script_pre, one.instance.script_post)):
            reason = f"TuneD runs {script}, which a preview does not"
            self.not_known.append(PreviewRemark(one.type, "", reason))
        try:
            special.record_context(one.plugin, self.shadow, self._modifiers)
            if one.type in special.APPLIED:
                apply = special.APPLIED[one.type]
                self.not_known += apply(one.plugin, one.instance, self.shadow)
            elif one.instance.active:
                one.plugin._instance_pre_static(one.instance, True)
                one.plugin._instance_apply_static(one.instance)
                one.plugin._instance_post_static(one.instance, True)
        except Exception as error:
            one.broken = f"TuneD's plugin fails: {type(error).__name__}: {error}"

    def _keep_what_was_read(self, variables: Any) -> None:
        """A function in a value may read files, too: a modifier compares with the setting's."""
        expand, shadow = variables.expand, self.shadow

        def expanding(value: Any) -> Any:
            before = shadow.context.last_read
            try:
                return expand(value)
            finally:
                shadow.context.last_read = before

        variables.expand = expanding

    @property
    def ours(self) -> list[PreviewedInstance]:
        """Sections of this project's plugins."""
        return [one for one in self.instances if one.ours]


def _is_ours(name: str) -> bool:
    return name.isidentifier() and bool(importlib.util.find_spec(f"tuned_virt.plugins.{name}"))
