# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in TuneD's own style (`@command_set` and so on), on every generation, kept on disk."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tuned.plugins import base

from tuned_virt.core.originals import Originals
from tuned_virt.tuned_api.common import contained

log = logging.getLogger("tuned")

PASSES_INSTANCE = "instance" in inspect.signature(base.Plugin._get_current_value).parameters
"""From TuneD 2.25 on the command methods are given the instance."""


class CommandPlugin:
    """Mixed in before `base.Plugin` or `hotplug.Plugin`: TuneD's own style of commands, everywhere.

    Command methods have the signatures of TuneD 2.25: `set(value[, device], instance, sim,
    remove)`, `get([device,] instance, ignore_missing=False)` and `custom(enabling, value[, device],
    verify, ignore_missing, instance)`. They may be inherited.
    """

    _commands: dict[str, dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._current = threading.local()
        self._baseline = Originals()
        self._claimed: set[str] = set()
        self._applied_instances = 0
        super().__init__(*args, **kwargs)

    # --- commands on every generation ---------------------------------------------------------

    def _autoregister_commands(self) -> None:
        found: dict[str, dict[str, Any]] = {}
        for name in dir(type(self)):
            method: Any = getattr(self, name) if not name.startswith("__") else None
            mark = getattr(method, "_command", None)
            if mark is None:
                continue
            info = found.setdefault(mark["name"], {"name": mark["name"], "custom": None})
            for kind in ("set", "get", "custom"):
                if kind in mark:
                    info[kind] = method if PASSES_INSTANCE else self._adapted(kind, method, mark)
            if "priority" in mark:
                info.update(priority=mark["priority"], per_device=mark["per_device"])
        by_priority = sorted(found.items(), key=lambda item: item[1].get("priority", 0))
        self._commands.update(by_priority)

    def _adapted(
        self, kind: str, method: Callable[..., Any], mark: Mapping[str, Any]
    ) -> Callable[..., Any]:
        adapters: dict[str, Callable[..., Any]] = {
            "set": self._old_set,
            "get": self._old_get,
            "custom": self._old_custom,
        }
        return functools.partial(adapters[kind], method, mark)

    def _old_set(
        self,
        method: Callable[..., Any],
        mark: Mapping[str, Any],
        value: Any,
        *rest: Any,
        sim: bool = False,
        remove: bool = False,
    ) -> Any:
        devices = 1 if mark["per_device"] else 0
        sim, remove = (*rest[devices:], sim, remove)[:2]
        return method(value, *rest[:devices], self._instance(), sim, remove)

    def _old_get(
        self, method: Callable[..., Any], mark: Mapping[str, Any], *device: Any, **named: Any
    ) -> Any:
        return method(*device, self._instance(), **named)

    def _old_custom(self, method: Callable[..., Any], mark: Mapping[str, Any], *rest: Any) -> Any:
        return method(*rest, self._instance())

    def _instance(self) -> Any:
        return getattr(self._current, "instance", None)

    @contextlib.contextmanager
    def _during(self, instance: Any, command: Mapping[str, Any]) -> Iterator[None]:
        outer, self._current.instance = self._instance(), instance
        try:
            with contained(f"{self.name} {command['name']}"):  # type: ignore[attr-defined]
                yield
        finally:
            self._current.instance = outer

    def _execute_device_command(
        self, instance: Any, command: dict[str, Any], device: str, new_value: Any
    ) -> None:
        with self._during(instance, command):
            super()._execute_device_command(instance, command, device, new_value)  # type: ignore[misc]

    def _execute_non_device_command(
        self, instance: Any, command: dict[str, Any], new_value: Any
    ) -> None:
        with self._during(instance, command):
            super()._execute_non_device_command(instance, command, new_value)  # type: ignore[misc]

    def _verify_device_command(
        self, instance: Any, command: dict[str, Any], device: str, new_value: Any, missing: bool
    ) -> Any:
        with self._during(instance, command):
            expanded = self._variables.expand(new_value)  # type: ignore[attr-defined]
            return super()._verify_device_command(  # type: ignore[misc]
                instance, command, device, expanded, missing
            )
        return False

    def _verify_non_device_command(
        self, instance: Any, command: dict[str, Any], new_value: Any, missing: bool
    ) -> Any:
        with self._during(instance, command):
            return super()._verify_non_device_command(  # type: ignore[misc]
                instance, command, new_value, missing
            )
        return False

    def _cleanup_device_command(
        self, instance: Any, command: dict[str, Any], device: str, *remove: Any, **named: Any
    ) -> None:
        with self._during(instance, command):
            super()._cleanup_device_command(  # type: ignore[misc]
                instance, command, device, *remove, **named
            )

    def _cleanup_non_device_command(self, instance: Any, command: dict[str, Any]) -> None:
        with self._during(instance, command):
            super()._cleanup_non_device_command(instance, command)  # type: ignore[misc]

    def _verify_value(
        self,
        name: str,
        new_value: Any,
        current_value: Any,
        ignore_missing: bool,
        device: Any = None,
    ) -> Any:
        """As text, or as numbers: TuneD's own loses leading zeros and takes exponential time."""
        if new_value is None:
            return None
        subject = f"'{name}'" if device is None else f"device {device}: '{name}'"
        if current_value is None and ignore_missing:
            log.info("verify: skipped, missing: %s", subject)
            return True
        found, wanted = str(current_value).strip(), str(new_value).strip()
        if found == wanted or _same_number(found, wanted):
            log.info("verify: passed: %s = '%s'", subject, found)
            return True
        log.error("verify: failed: %s = '%s', expected '%s'", subject, found, wanted)
        return False

    # --- originals on disk --------------------------------------------------------------------

    def identity(self, device: str) -> str:
        """What a device is, beyond its name, so that a namesake is not given its past."""
        return device

    def _key(self, command: Mapping[str, Any], device: str | None) -> str:
        name: str = command["name"]
        return name if device is None else f"{name}/{self.identity(device)}"

    def _storage_set(
        self, instance: Any, command: Mapping[str, Any], value: Any, device_name: str | None = None
    ) -> None:
        key = self._key(command, device_name)
        self._claimed.add(key)
        self._baseline.keep(self.name, {key: str(value)})  # type: ignore[attr-defined]

    def _storage_get(
        self, instance: Any, command: Mapping[str, Any], device_name: str | None = None
    ) -> str | None:
        originals = self._baseline.record(self.name).originals  # type: ignore[attr-defined]
        return originals.get(self._key(command, device_name))

    def _storage_unset(
        self, instance: Any, command: Mapping[str, Any], device_name: str | None = None
    ) -> None:
        key = self._key(command, device_name)
        self._claimed.discard(key)
        self._baseline.forget(self.name, [key])  # type: ignore[attr-defined]

    def _check_and_save_value(
        self, instance: Any, command: dict[str, Any], device: Any = None, new_value: Any = None
    ) -> Any:
        """As TuneD's, but a modifier (">100") is relative to the true original."""
        original = self._storage_get(instance, command, device)
        if original is None:
            return super()._check_and_save_value(  # type: ignore[misc]
                instance, command, device, new_value
            )
        self._claimed.add(self._key(command, device))
        value = self._process_assignment_modifiers(new_value, original)  # type: ignore[attr-defined]
        return original if value is None else value

    def instance_apply_tuning(self, instance: Any) -> None:
        """Apply; after the last instance put back what none of them claims any more."""
        super().instance_apply_tuning(instance)  # type: ignore[misc]
        self._applied_instances += 1
        if self._applied_instances == len(self._instances):  # type: ignore[attr-defined]
            with contained(self.name):  # type: ignore[attr-defined]
                self._sweep(instance)

    def _sweep(self, instance: Any) -> None:
        originals = self._baseline.record(self.name).originals  # type: ignore[attr-defined]
        devices = getattr(self, "_assigned_devices", set()) | getattr(self, "_free_devices", set())
        for command in self._commands.values():
            if command.get("custom"):
                continue
            for device in devices if command["per_device"] else [None]:
                if self._key(command, device) in originals.keys() - self._claimed:
                    self._put_back(instance, command, device)

    def _put_back(self, instance: Any, command: dict[str, Any], device: str | None) -> None:
        if device is None:
            self._cleanup_non_device_command(instance, command)
        else:
            self._cleanup_device_command(instance, command, device)


def _same_number(found: str, wanted: str) -> bool:
    try:
        return int(found, 0) == int(wanted, 0)
    except ValueError:
        return False
