# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugins whose devices are running guests.

TuneD's bookkeeping of devices stays TuneD's: which instance has which guest. What is wanted of the
guests is only claimed, and carried out elsewhere (see `guesttuner`), so that nothing here waits for
libvirt. The races of stock TuneD are cured by one lock, by acting on guests that come and go only
while every instance is applied, and by claiming all that is wanted at once after each change.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tuned.plugins import hotplug

from tuned_virt.core.device_filter import device, selects
from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.next_profile import NextProfile
from tuned_virt.core.options import SYSTEM, BadOptions, OptionError
from tuned_virt.core.originals import OriginalsError, shared_originals
from tuned_virt.core.section_settings import selection
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.guests.manager import Claim, GuestManager, GuestTuner, Run, guest_manager
from tuned_virt.kernel import systemd, timeouts
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.libvirt_api.connection import Domain
from tuned_virt.tuned_api import same_files
from tuned_virt.tuned_api.common import (
    TunerOptions,
    contained,
    log_findings,
    log_stock,
    next_profile,
)

log = logging.getLogger("tuned")

MOVING = 5.0
"""Seconds after which a guest that one instance gave away, and none took, is anybody's."""


@dataclass(frozen=True)
class _Device:
    """What TuneD's events carry: `sys_name` alone is read."""

    sys_name: str


class GuestPlugin(TunerOptions, hotplug.Plugin):  # type: ignore[misc]
    """A plugin that does something to running guests, by a `GuestTuner`."""

    tuner: GuestTuner[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._turn = threading.RLock()
        self._known: dict[str, Domain] = {}
        self._moving: dict[str, float] = {}
        self._policies: dict[str, Any] = {}
        self._selections: dict[str, str | None] = {}
        self._misnamed: dict[str, list[OptionError]] = {}
        self._bad: dict[str, list[OptionError]] = {}
        self._applied: set[str] = set()
        self._closed = False
        self._manager: GuestManager[Any] | None = None
        super().__init__(*args, **kwargs)

    # --- options ----------------------------------------------------------------------------

    def _get_effective_options(self, options: Mapping[str, str]) -> dict[str, str | None]:
        self._unknown.clear()
        return super()._get_effective_options(options)

    def create_instance(self, *args: Any, **kwargs: Any) -> Any:
        """As TuneD's, whose parameters differ by generation; bad options are kept for verify."""
        with self._turn:
            instance = super().create_instance(*args, **kwargs)
            self._misnamed[instance.name] = list(self._unknown)
            names_file = bool(instance.options.get("settings"))
            for one in list(self._instances.values()):
                if one is instance or (names_file and not one.options.get("settings")):
                    self._parse(one)
            return instance

    def _parse(self, instance: Any) -> None:
        """A section's policy and guests; one that names no settings file reads another's."""
        written = self._written(instance)
        others = (self._written(one) for one in self._instances.values())
        found = self._settings((written, *others))
        bad = [*self._misnamed[instance.name], *found.errors]
        try:
            texts = self._combined(instance.name, found, written)
            told = {name: text for name, text in texts.items() if text}
            self._policies[instance.name] = self._once(
                f"[{instance.name}]", told, lambda: self.tuner.parse(told)
            )
        except BadOptions as errors:
            bad += found.told(errors.errors, written)
        self._selections[instance.name] = selection(instance.devices_expression, found)
        self._bad.pop(instance.name, None)
        for error in bad:
            log.error("%s: %s; no setting of [%s] is applied", self.name, error, instance.name)
        if bad:
            self._policies.pop(instance.name, None)
            self._bad[instance.name] = bad

    def asked(self, instance: Any) -> tuple[Any, str | None, list[OptionError]]:
        """A section's policy (None where its options are bad), its guests, and what is bad."""
        name = instance.name
        return self._policies.get(name), self._selections.get(name), self._bad.get(name, [])

    def _uri(self) -> str:
        """The libvirt of all instances: the first one's."""
        uris = [getattr(policy, "uri", SYSTEM) for policy in self._policies.values()]
        return uris[0] if uris else SYSTEM

    def _instance_init(self, instance: Any) -> None:
        super()._instance_init(instance)
        policy = self._policies.get(instance.name)
        uri = getattr(policy, "uri", SYSTEM)
        if policy is not None and self._manager is not None and uri != self._manager.control.uri:
            valid = f"one plugin can use only one libvirt, here {self._manager.control.uri}"
            self._bad[instance.name] = [OptionError("uri", uri, valid)]
            del self._policies[instance.name]
            log.error("%s: %s", self.name, self._bad[instance.name][0])

    # --- guests that come and go ------------------------------------------------------------

    def _init_devices(self) -> None:
        self._devices_supported = True
        self._assigned_devices: set[str] = set()
        self._free_devices: set[str] = set()
        self._others_due = True
        with contained(self.name):
            super()._init_devices()

    def _hardware_events_init(self) -> None:
        self._manager = guest_manager(self.tuner, self._uri())
        running = self._manager.attach(self)
        self._restore_others()
        with self._turn:
            self._known = _by_device(running)
            self._free_devices |= self._known.keys()

    def _restore_others(self) -> None:
        """Have guests of libvirts that no section uses restored; what cannot be read now, later."""
        try:
            uris = self.tuner.uris()
        except OriginalsError as error:
            log.error("%s: %s", self.name, error)
            return
        self._others_due = False
        for uri in uris:
            if self._manager is not None and uri != self._manager.control.uri:
                guest_manager(self.tuner, uri).restore_unclaimed()

    def _hardware_events_cleanup(self) -> None:
        """TuneD before 2.25 keeps every plugin object for ever: it may hold nothing any more."""
        with self._turn:
            self._closed = True
            self._known = {}
            self._policies.clear()
        if self._manager is not None:
            self._manager.detach(self)

    def guests_changed(self, guests: Mapping[str, Domain]) -> Mapping[Run, Claim[Any]] | None:
        """Tell TuneD of what came and went; a restarted guest has gone and come.

        What is claimed then; None while not every instance is applied.
        """
        with contained(self.name), self._turn:
            if self._closed or not self._live:
                return None
            if self._others_due:
                self._restore_others()
            now = _by_device(guests)
            for name in (self._assigned_devices | self._free_devices) - self._still(now):
                self._hardware_events_callback("remove", _Device(name))
            self._known = now
            moving = {n for n, at in self._moving.items() if time.monotonic() - at < MOVING}
            known = self._assigned_devices | self._free_devices | moving
            for name in now.keys() - known:
                self._hardware_events_callback("add", _Device(name))
            return self._claims()
        return None

    def _still(self, now: Mapping[str, Domain]) -> set[str]:
        """Devices that are the same run of the same guest as before."""
        before = self._known
        return {name for name in now if name in before and now[name].run == before[name].run}

    @property
    def _live(self) -> bool:
        """Whether every instance is between apply and unapply."""
        return bool(self._applied) and self._instances.keys() <= self._applied

    def _get_matching_devices(self, instance: Any, devices: Iterable[str]) -> set[str]:
        if instance.devices_udev_regex is not None:
            log.error("%s: devices_udev_regex does not apply to guests: use devices=", self.name)
            return set()
        return {
            name
            for name in devices
            if selects(self._selections.get(instance.name), self._names(name))
        }

    def _names(self, name: str) -> list[str]:
        guest = self._known.get(name)
        return [guest.name, guest.uuid] if guest else [name]

    # --- TuneD's steps, one at a time -------------------------------------------------------

    def assign_free_devices(self, instance: Any) -> None:
        """As TuneD's, which warns of no guests; active without any too, for those that come."""
        with self._turn:
            if self._get_matching_devices(instance, self._free_devices):
                super().assign_free_devices(instance)
            instance.active = True

    def instance_apply_tuning(self, instance: Any) -> None:
        """Claim the guests once the last instance is applied, and wait a moment for the pins."""
        with contained(self.name), self._turn:
            instance.active = True
            super().instance_apply_tuning(instance)
            self._applied.add(instance.name)
            self._claim()
        self._settle()

    def instance_unapply_tuning(self, instance: Any, *rollback: Any, **named: Any) -> None:
        """Release all guests once the last instance is unapplied."""
        with contained(self.name):
            with self._turn:
                before = len(self._applied)
                super().instance_unapply_tuning(instance, *rollback, **named)
                last = before > 0 and not self._applied
            if last:
                self._release()

    def instance_verify_tuning(self, instance: Any, ignore_missing: bool) -> Any:
        """As TuneD's, of an instance without guests too."""
        instance.active = True
        return super().instance_verify_tuning(instance, ignore_missing)

    def destroy_instance(self, instance: Any) -> None:
        """As TuneD's. One that was never unapplied (rollback=not_on_exit) leaves its guests so."""
        with self._turn:
            if instance.name in self._applied:
                self._closed = True
            super().destroy_instance(instance)
            self._policies.pop(instance.name, None)
            for kept in (self._bad, self._selections, self._misnamed):
                kept.pop(instance.name, None)

    def _add_device(self, device_name: str) -> None:
        with self._turn:
            self._moving.pop(device_name, None)
            super()._add_device(device_name)
            self._keep_active()

    def _remove_device(self, device_name: str) -> None:
        with self._turn:
            super()._remove_device(device_name)
            self._keep_active()

    def _add_devices_nocheck(self, instance: Any, device_names: Iterable[str]) -> None:
        with self._turn:
            for name in device_names:
                self._moving.pop(name, None)
            super()._add_devices_nocheck(instance, device_names)
            self._keep_active()
            self._claim()
        self._settle()

    def _remove_devices_nocheck(self, instance: Any, device_names: Iterable[str]) -> None:
        """The first half of a move: nothing is claimed, or listed as new, until the second."""
        with self._turn:
            self._moving.update(dict.fromkeys(device_names, time.monotonic()))
            super()._remove_devices_nocheck(instance, device_names)
            self._keep_active()

    def _keep_active(self) -> None:
        for instance in self._instances.values():
            instance.active = True

    def _instance_apply_static(self, instance: Any) -> None:
        pass

    def _instance_unapply_static(self, instance: Any, *_rollback: Any, **_named: Any) -> None:
        self._applied.discard(instance.name)

    def _added_device_apply_tuning(self, instance: Any, device_name: str) -> None:
        pass

    def _removed_device_unapply_tuning(self, instance: Any, device_name: str) -> None:
        pass

    # --- what is claimed --------------------------------------------------------------------

    def _claim(self) -> None:
        """All that every instance together claims, once they all are applied."""
        if self._manager is not None and self._live and not self._closed:
            self._manager.claim(self._claims())

    def _claims(self) -> dict[Run, Claim[Any]]:
        claims: dict[Run, Claim[Any]] = {}
        for instance in self._instances.values():
            policy = self._policies.get(instance.name)
            for name in instance.processed_devices | instance.assigned_devices:
                if policy is not None and name in self._known:
                    claims[self._known[name].run] = Claim(name, policy)
        return claims

    def _settle(self) -> None:
        serving = self._manager if self._live else None
        if serving is not None and not serving.settle() and not serving.control.unavailable:
            log.info("%s: continues in the background", self.name)

    def _release(self) -> None:
        if self._manager is None:
            return
        following = next_profile()
        if following is None or not self._taken_over(following):
            self._manager.release()
            if not self._manager.settle(timeouts.GUESTS_RESTORED) and not self._manager.idle:
                log.info("%s: it is restored as soon as libvirt answers", self.name)
        elif following.settled is not None:
            self._manager.release(following.settled)
        else:
            log.info("%s: kept for the %s that systemd starts next", self.name, systemd.SERVICE)

    def _taken_over(self, following: NextProfile) -> bool:
        """Whether what is set may stay for the next profile; not where what is kept of the kernel's
        settings cannot be read."""
        try:
            kept = shared_originals().record(self.tuner.name).originals
        except OriginalsError:
            return False
        return following.takes_over(self.tuner.name, self.tuner.kernel_files(kept))

    def _instance_verify_static(self, instance: Any, ignore_missing: bool, devices: Any) -> bool:
        stock = log_stock(self.name, instance)
        with contained(self.name):
            found = [
                Finding(Result.FAILED, f"'{self.name}': {error}")
                for error in self._bad.get(instance.name, [])
            ]
            try:
                found += self._findings(instance, ignore_missing, devices)
            except (KernelFileError, OriginalsError) as error:
                found.append(Finding(Result.FAILED, f"'{self.name}': {error}"))
            return log_findings(found) and stock
        return False

    def _findings(self, instance: Any, ignore_missing: bool, devices: Any) -> list[Finding]:
        """What verify says of an instance's guests; of the machine with the first one's.

        Raises KernelFileError and OriginalsError.
        """
        found: list[Finding] = []
        if self._manager is None:
            return found
        if instance is next(iter(self._instances.values())):
            found += self._manager.unavailable()
            running = [(one.name, one.uuid) for one in self._known.values()]
            policies = () if found else tuple(self._policies.values())
            notes = self.tuner.notes(policies, running)
            found += [Finding(Result.NOTE, f"{self.name}: {note}") for note in notes]
            found += same_files.findings(self.tuner.files(policies), instance)
        known = [self._known[name].run for name in devices if name in self._known]
        return found + self._manager.findings(known, ignore_missing)


def _by_device(guests: Mapping[str, Domain]) -> dict[str, Domain]:
    return {device(guest.name, guest.uuid): guest for guest in guests.values()}
