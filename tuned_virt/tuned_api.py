"""TuneD's API generations, its storage and its races: the only file that knows TuneD's insides.

Plugins are written once, against the interface of TuneD 2.25 and later, and run on 2.20 and later:

- `PlannedPlugin` for what is planned as a whole (KSM): it takes a `Tuner` and holds no policy.
- `CommandPlugin` for commands in TuneD's own style (`@command_set` and so on), mixed in before
  `base.Plugin` or `hotplug.Plugin`; originals survive a `kill -9` of TuneD.

Both keep every exception in: TuneD answers one from a plugin by leaving the rest of the profile
unset, or by hanging. Generations differ as upstream's git history of tuned/plugins/base.py shows.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from tuned.plugins import base

from tuned_virt import service
from tuned_virt.baseline import Baseline
from tuned_virt.engine import Engine, Finding, Result, Tuner
from tuned_virt.journal import Journal
from tuned_virt.kernelfs import KernelFS
from tuned_virt.options import BadOptions, OptionError, Section, is_yes
from tuned_virt.steward import Steward

log = logging.getLogger("tuned")

PASSES_INSTANCE = "instance" in inspect.signature(base.Plugin._get_current_value).parameters
"""From TuneD 2.25 on the command methods are given the instance."""

FOLLOWED_BY_APPLY = frozenset({"_switch_profile", "reload"})
"""Methods of TuneD's controller that unapply only to apply again at once."""


def _next_apply() -> threading.Event | None:
    """Set once the profile is applied that a switch or reload under way applies next, else None.

    TuneD does not tell a plugin why it unapplies, but the thread that asked for it waits in one of
    the controller's methods.
    """
    for thread_frame in sys._current_frames().values():
        frame: FrameType | None = thread_frame
        while frame is not None:
            if (
                frame.f_code.co_name in FOLLOWED_BY_APPLY
                and frame.f_globals.get("__name__") == "tuned.daemon.controller"
            ):
                daemon = getattr(frame.f_locals.get("self"), "_daemon", None)
                return getattr(daemon, "_profile_applied", threading.Event())
            frame = frame.f_back
    return None


_stewards: dict[str, Steward[Any, Any]] = {}
_stewards_lock = threading.Lock()


def steward(tuner: Tuner[Any, Any]) -> Steward[Any, Any]:
    """The process's one steward for a tuner: TuneD makes new plugin objects at every switch."""
    with _stewards_lock:
        if tuner.name not in _stewards:
            engine = Engine(tuner, KernelFS(), Baseline(), Journal())
            _stewards[tuner.name] = Steward(engine)
        return _stewards[tuner.name]


@contextlib.contextmanager
def contained(plugin: str) -> Iterator[None]:
    """Say an exception instead of letting it into TuneD."""
    try:
        yield
    except Exception:
        log.exception("%s: internal error, please report it", plugin)


def log_findings(findings: list[Finding]) -> bool:
    """Log the findings as TuneD logs its own; whether none failed."""
    for finding in findings:
        log.log(logging.ERROR if finding.result is Result.FAILED else logging.INFO, "%s", finding)
    return not any(finding.result is Result.FAILED for finding in findings)


class PlannedPlugin(base.Plugin):  # type: ignore[misc]
    """A plugin whose options are planned and applied as a whole, by a `Tuner`.

    All instances of a profile share one plan: their options are merged in the order of their
    priority, or they stay apart where the tuner is `sectioned`. One bad option, and none of them is
    applied.
    """

    tuner: Tuner[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unknown: list[OptionError] = []
        self._bad: list[OptionError] = []
        self._applied: list[Any] = []
        self._broken = False

    @classmethod
    def _get_config_options(cls) -> dict[str, str | None]:
        return {name: option.default for name, option in cls.tuner.options.items()}

    @classmethod
    def get_config_options_hints(cls) -> dict[str, str]:
        """What each option means, for TuneD's GUI and D-Bus."""
        return {name: option.hint for name, option in cls.tuner.options.items()}

    def _get_effective_options(self, options: Mapping[str, str]) -> dict[str, str | None]:
        valid = f"use one of {', '.join(sorted(self.tuner.options))}"
        self._unknown += [
            OptionError(name, str(value), f"there is no such option; {valid}")
            for name, value in options.items()
            if name not in self.tuner.options
        ]
        known = {name: value for name, value in options.items() if name in self.tuner.options}
        return {**self._get_config_options(), **known}

    def _instance_init(self, instance: Any) -> None:
        instance._has_static_tuning = True
        instance._has_dynamic_tuning = False

    def _instance_cleanup(self, instance: Any) -> None:
        pass

    def _instance_apply_static(self, instance: Any) -> None:
        first = not self._applied
        self._applied.append(instance)
        if first:
            self._broken = True
            with contained(self.tuner.name):
                self._apply()
                self._broken = False

    def _instance_unapply_static(self, instance: Any, *_rollback: Any, **_named: Any) -> None:
        if instance in self._applied:
            self._applied.remove(instance)
        if not self._applied:
            with contained(self.tuner.name):
                self._unapply()

    def _instance_verify_static(self, instance: Any, ignore_missing: bool, devices: Any) -> bool:
        if self._applied and instance is not self._applied[0]:
            return True
        with contained(self.tuner.name):
            reasons = [str(error) for error in self._bad]
            reasons += ["internal error while it was applied, see above"] if self._broken else []
            bad = [Finding(Result.FAILED, f"'{self.tuner.name}': {reason}") for reason in reasons]
            return log_findings(bad + steward(self.tuner).verify(ignore_missing))
        return False

    def _apply(self) -> None:
        self._bad = list(self._unknown)
        policy = self.tuner.parse({})
        observe = False
        try:
            observe, policy = self._sections() if self.tuner.sectioned else self._whole()
        except BadOptions as errors:
            self._bad += errors.errors
        for bad in self._bad:
            log.error("%s: %s; nothing of [%s] is applied", self.tuner.name, bad, self.name)
        if self._bad:
            policy = self.tuner.parse({})
        steward(self.tuner).apply(policy, observe)

    def _whole(self) -> tuple[bool, Any]:
        """Whether only to observe, and the policy of all instances merged. Raises BadOptions."""
        options = self._merged_options()
        observe = _observe(options.pop("observe"))
        return observe, self.tuner.parse({name: text or "" for name, text in options.items()})

    def _sections(self) -> tuple[bool, Any]:
        """The same of instances that stay apart; one that observes has all do so."""
        sections = [self._section(instance) for instance in self._instances.values()]
        observe = any([_observe(section.options.get("observe")) for section in sections])
        return observe, self.tuner.parse_sections(sections, self._rivals())

    def _section(self, instance: Any) -> Section:
        texts = {
            **instance.options,
            "devices=": instance.devices_expression,
            "devices_udev_regex=": instance.devices_udev_regex,
        }
        options = self._expanded(texts)
        devices, udev_regex = (options.pop(name) for name in list(texts)[-2:])
        return Section(instance.name, options, devices, udev_regex)

    def _rivals(self) -> list[Section]:
        """Sections of TuneD's own that set the same, with the devices that they have been given.

        Plugins with devices subscribe to udev's events; nothing else leads to them from here.
        """
        name, option = self.tuner.rival
        inventory = getattr(self, "_hardware_inventory", None)
        subscribed = [
            plugin
            for subscriptions in getattr(inventory, "_subscriptions", {}).values()
            for plugin, _ in subscriptions
            if getattr(plugin, "name", "") == name
        ]
        return [
            Section(instance.name, {option: text}, " ".join(sorted(instance.assigned_devices)))
            for plugin in subscribed
            for instance in plugin._instances.values()
            if (text := self._variables.expand(instance.options.get(option)) or "")
        ]

    def _merged_options(self) -> dict[str, str | None]:
        defaults = self._get_config_options()
        merged = dict(defaults)
        for instance in self._instances.values():
            for name, text in self._expanded(instance.options).items():
                if not text or text in (defaults[name], merged[name]):
                    continue
                if merged[name] != defaults[name]:
                    log.warning(
                        "%s: several sections set %s: '%s' gives way to '%s' of [%s]",
                        *(self.tuner.name, name, merged[name], text, instance.name),
                    )
                merged[name] = text
        return merged

    def _expanded(self, options: Mapping[str, str | None]) -> dict[str, str]:
        """Options with their variables replaced, in one go: TuneD compiles its table at each."""
        joined: str = self._variables.expand("\0".join(value or "" for value in options.values()))
        return dict(zip(options, joined.split("\0")))

    def _unapply(self) -> None:
        settled = _next_apply() if self.tuner.restore_waits else None
        if settled is not None:
            steward(self.tuner).restore_later(settled)
        elif self.tuner.restore_waits and service.restarting():
            log.info(
                "%s: left for the %s that systemd starts next", self.tuner.name, service.SERVICE
            )
        else:
            steward(self.tuner).restore()


def _observe(text: str | None) -> bool:
    try:
        return is_yes("observe", text or "0")
    except OptionError as error:
        raise BadOptions([error]) from error


class CommandPlugin:
    """Mixed in before `base.Plugin` or `hotplug.Plugin`: TuneD's own style of commands, everywhere.

    Command methods have the signatures of TuneD 2.25: `set(value[, device], instance, sim,
    remove)`, `get([device,] instance, ignore_missing=False)` and `custom(enabling, value[, device],
    verify, ignore_missing, instance)`. They may be inherited.
    """

    _commands: dict[str, dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._current = threading.local()
        self._baseline = Baseline()
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
