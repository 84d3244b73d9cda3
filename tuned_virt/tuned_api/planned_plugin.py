# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugins whose options are planned and applied as a whole, by a `Tuner`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from tuned.plugins import base

from tuned_virt.core import active_profile
from tuned_virt.core.engine import Engine, Finding, Result
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.journal import Journal
from tuned_virt.core.next_profile import NextProfile
from tuned_virt.core.options import BadOptions, OptionError, Section, is_yes
from tuned_virt.core.originals import OriginalsError, shared_originals
from tuned_virt.core.overridden import ProfilesInForce, overridden
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.core.section_settings import SectionSettings, selection
from tuned_virt.core.system_root import OutsideRootError, SystemRoot
from tuned_virt.core.tuner import Sections, Tuner
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.tuned_api import same_files
from tuned_virt.tuned_api.common import (
    TunerOptions,
    contained,
    expanded,
    log_findings,
    log_stock,
    next_profile,
)
from tuned_virt.tuned_api.stock_journal import StockJournal
from tuned_virt.tuned_api.stock_values import applied_sections

log = logging.getLogger("tuned")

_runners: dict[str, PlanRunner[Any, Any]] = {}
_runners_lock = threading.Lock()


def plan_runner(tuner: Tuner[Any, Any]) -> PlanRunner[Any, Any]:
    """The process's one plan runner for a tuner: TuneD makes new plugin objects at every switch."""
    with _runners_lock:
        if tuner.name not in _runners:
            engine = Engine(tuner, KernelFS(), shared_originals(), Journal())
            _runners[tuner.name] = PlanRunner(engine)
        return _runners[tuner.name]


@dataclass(frozen=True)
class AskedPolicy:
    """The policy of all sections of a plugin, whether it is only observed, and what is bad."""

    policy: Any
    observe: bool
    errors: tuple[OptionError, ...]


class PlannedPlugin(TunerOptions, base.Plugin):  # type: ignore[misc]
    """A plugin whose options are planned and applied as a whole, by a `Tuner`.

    All instances of a profile share one plan: their options are merged in the order of their
    priority, or they stay apart where the tuner has `sections`. One bad option, and none of them is
    applied.
    """

    tuner: Tuner[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bad: list[OptionError] = []
        self._applied: list[Any] = []
        self._stock = StockJournal()
        self._broken = False
        self._observed = False
        self._file = SectionSettings()

    def _instance_apply_static(self, instance: Any) -> None:
        first = not self._applied
        self._applied.append(instance)
        with contained(self.tuner.name):
            self._stock.applying(instance)
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
                self._stock.unapplied()
            with contained(self.tuner.name):
                self._unapply()

    def _instance_verify_static(self, instance: Any, ignore_missing: bool, devices: Any) -> bool:
        stock = log_stock(self.name, instance)
        if self._applied and instance is not self._applied[0]:
            return stock
        with contained(self.tuner.name):
            reasons = [str(error) for error in self._bad]
            reasons += ["internal error while it was applied; see the log"] if self._broken else []
            bad = [Finding(Result.FAILED, f"'{self.tuner.name}': {reason}") for reason in reasons]
            bad += self._overridden()
            if not reasons:
                bad += same_files.findings(self._files(), instance)
            return log_findings(bad + plan_runner(self.tuner).verify(ignore_missing)) and stock
        return False

    def _files(self) -> Mapping[str, str]:
        """Kernel files that the sections set and TuneD's own plugins may set, too."""
        if self._observed:
            return {}
        return self.tuner.files(self.asked().policy, plan_runner(self.tuner).planned)

    def _overridden(self) -> list[Finding]:
        """Lines of the settings file for TuneD's own plugins that do not hold."""
        sections = applied_sections()
        if not self.tuner.tuned_settings or sections is None:
            return []
        if self._observed:
            return [self._observing()]
        system, tuner = SystemRoot(), self.tuner
        try:
            active, known = active_profile.read(system), InstalledProfiles(system)
            force = ProfilesInForce(KernelFS(), known, active, sections)
            found = overridden(self._file, tuner.tuned_settings, tuner.tuned_choices, force)
            return [Finding(Result.FAILED if o.fails else Result.NOTE, o.text) for o in found]
        except (OSError, OutsideRootError, KernelFileError) as error:
            text = f"'{tuner.name}': {self._file.file}: what of it holds cannot be told: {error}"
            return [Finding(Result.FAILED, text)]

    def _observing(self) -> Finding:
        """Said once: what is only watched verifies, whatever it is."""
        line = self._file.lines.get("observe")
        where = f"{line.file or self._file.file}: line {line.line}: " if line else ""
        text = f"'observe': {where}the plugins of tuned-virt-plus verify only, and change nothing"
        return Finding(Result.NOTE, text)

    def _apply(self) -> None:
        asked = self.asked()
        self._bad = list(asked.errors)
        for bad in self._bad:
            log.error("%s: %s; no setting of [%s] is applied", self.tuner.name, bad, self.name)
        self._observed = asked.observe
        plan_runner(self.tuner).apply(asked.policy, asked.observe)

    def asked(self) -> AskedPolicy:
        """What the profile's sections ask for; nothing where one of their options is bad."""
        written = {one.name: self._written(one) for one in self._instances.values()}
        found = self._file = self._settings(written.values())
        errors = [*self._unknown, *found.errors]
        policy, observe = None, False
        merged = self._merged(written)
        try:
            apart = self.tuner.sections
            if apart is None:
                observe, policy = self._whole(self._combined("all", found, merged))
            else:
                observe, policy = self._sections(apart, found, written)
        except BadOptions as bad:
            errors += found.told(bad.errors, merged)
        if errors:
            policy = self.tuner.parse({})
        return AskedPolicy(policy, observe, tuple(errors))

    def _whole(self, options: Mapping[str, str]) -> tuple[bool, Any]:
        """Whether only to observe, and the policy of all instances merged. Raises BadOptions."""
        own = {name: text for name, text in options.items() if name != "observe"}
        observe = _observe(options["observe"])
        return observe, self._once("policy", own, lambda: self.tuner.parse(own))

    def _sections(
        self, apart: Sections[Any], found: SectionSettings, written: Mapping[str, Mapping[str, str]]
    ) -> tuple[bool, Any]:
        """The same of instances that stay apart; one that observes has all do so."""
        sections = [
            self._section(instance, found, written[name])
            for name, instance in self._instances.items()
        ]
        observe = any([_observe(section.options.get("observe")) for section in sections])
        asked = (sections, self._conflicting(*apart.conflicting_plugin))
        return observe, self._once("policy", asked, lambda: apart.parse(*asked))

    def _section(
        self, instance: Any, found: SectionSettings, written: Mapping[str, str]
    ) -> Section:
        texts = {"devices": instance.devices_expression, "regex": instance.devices_udev_regex}
        own = expanded(self._variables, texts)
        options = self._combined(instance.name, found, written)
        return Section(instance.name, options, selection(own["devices"], found) or "", own["regex"])

    def _conflicting(self, name: str, option: str) -> list[Section]:
        """Sections of TuneD's own that set the same, with the devices that they have been given.

        Plugins with devices subscribe to udev's events; nothing else leads to them from here.
        """
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

    def _merged(self, written: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """What the sections set themselves, the last of them first."""
        merged: dict[str, str] = {}
        for section, options in written.items():
            for name, text in options.items():
                before = merged.get(name, "")
                if self.tuner.sections is None and text and before not in ("", text):
                    log.warning(
                        "%s: several sections set %s: '%s' is overridden by '%s' of [%s]",
                        *(self.tuner.name, name, before, text, section),
                    )
                merged[name] = text or before
        return merged

    def _unapply(self) -> None:
        runner = plan_runner(self.tuner)
        following = next_profile() if self.tuner.restore_is_deferred else None
        if following is None or not self._taken_over(following, runner.policy):
            runner.restore()
        elif following.settled is not None:
            runner.restore_later(following.settled)
        else:
            log.info(
                "%s: kept for the %s that systemd starts next", self.tuner.name, systemd.SERVICE
            )

    def _taken_over(self, following: NextProfile, policy: Any) -> bool:
        """Whether what is set may stay for the next profile; not where what is kept of it, which
        is more than the plan has while it is being applied, cannot be read."""
        try:
            kept = shared_originals().record(self.tuner.name).originals
        except OriginalsError:
            return False
        files = () if policy is None else self.tuner.files(policy, kept)
        apart = self.tuner.sections
        conflicting = apart.conflicting_plugin if apart else ("", "")
        return following.takes_over(self.tuner.name, files, conflicting)


def _observe(text: str | None) -> bool:
    try:
        return is_yes("observe", text or "0")
    except OptionError as error:
        raise BadOptions([error]) from error
