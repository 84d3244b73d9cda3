# SPDX-License-Identifier: GPL-2.0-or-later
"""What this project's own plugins would do: the very plan that each would carry out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import OptionError
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import Plan, shown
from tuned_virt.core.preview import PreviewedValue, PreviewRemark, SwitchPreview, known
from tuned_virt.core.tuner import Tuner
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.tuned_api.guest_plugin import GuestPlugin
from tuned_virt.tuned_api.planned_plugin import PlannedPlugin
from tuned_virt.tuned_api.preview.instances import PreviewedInstance, ProfileInstances

CRASH_GUARD = "crash_guard"
"""Keeps originals and sets nothing of its own."""


@dataclass(frozen=True)
class GuestSection:
    """A section of a plugin whose devices are guests; None as policy where its options are bad."""

    plugin: str
    section: str
    devices: str
    policy: Any


def plan(
    new: ProfileInstances, active: ProfileInstances | None, found: SwitchPreview
) -> list[GuestSection]:
    """Add what planned plugins would do; the sections for guests, which others plan."""
    wanted = _by_plugin(new.ours)
    watched: dict[str, int] = {}
    for name, one in wanted.items():
        if isinstance(one.plugin, PlannedPlugin) and name != CRASH_GUARD:
            would = _add_planned(new, one, found)
            watched.update({} if would is None else {name: would})
    if watched:
        found.notes.append(PreviewRemark("observe=1", "", _watching(watched)))
    for name, one in _by_plugin(active.ours if active else ()).items():
        if isinstance(one.plugin, PlannedPlugin) and name not in wanted and name != CRASH_GUARD:
            _add_undone(one, found)
    return [
        section
        for one in new.ours
        if isinstance(one.plugin, GuestPlugin)
        for section in _guest_section(one, found)
    ]


def _by_plugin(instances: Iterable[PreviewedInstance]) -> dict[str, PreviewedInstance]:
    """The first section of each plugin."""
    found: dict[str, PreviewedInstance] = {}
    for one in instances:
        found.setdefault(one.type, one)
    return found


def _engine(tuner: Tuner[Any, Any]) -> Engine[Any, Any]:
    return Engine(tuner, KernelFS(), Originals(), Journal())


def _watching(watched: Mapping[str, int]) -> str:
    """What plugins that only watch would set, by plugin."""
    counted = ", ".join(f"{name} {number}" for name, number in watched.items() if number)
    would = f"without it they would set: {counted}" if counted else "and would change nothing now"
    return f"the plugins of tuned-virt-plus set nothing; {would}"


def _add_planned(new: ProfileInstances, one: PreviewedInstance, found: SwitchPreview) -> int | None:
    """Add a plan's changes; of a plugin that only watches how many there would be."""
    asked = one.plugin.asked()
    found.refused += [_bad(one, error) for error in asked.errors]
    engine = _engine(one.plugin.tuner)
    try:
        made = engine.plan(engine.nothing(asked.policy) if asked.observe else asked.policy)
        _add(new, one, made, found)
        return len(engine.plan(asked.policy).changes) if asked.observe else None
    except (KernelFileError, OriginalsError) as error:
        found.not_known.append(PreviewRemark(one.type, "", str(error)))
        return None


def _add_undone(one: PreviewedInstance, found: SwitchPreview) -> None:
    engine = _engine(one.plugin.tuner)
    try:
        _add(None, one, engine.plan(engine.nothing(one.plugin.asked().policy)), found)
    except (KernelFileError, OriginalsError) as error:
        found.not_known.append(PreviewRemark(one.type, "", str(error)))


def _add(
    new: ProfileInstances | None, one: PreviewedInstance, made: Plan, found: SwitchPreview
) -> None:
    """A plan's changes, and what it wants that is so already."""
    line = new.loaded.line(one.name) if new else None
    section = one.name if new else ""
    changed = {change.setting for change in made.changes}
    found.values += [
        PreviewedValue(
            *(one.type, section, shown(change.setting), change.path),
            *(known(change.before), known(change.after), change.why, line),
        )
        for change in made.changes
    ]
    found.values += [
        PreviewedValue(one.type, section, shown(name), "", known(value), known(value), "", line)
        for name, value in made.wanted.items()
        if name not in changed
    ]
    found.refused += [PreviewRemark(one.type, shown(s), why) for s, why in made.refused.items()]
    found.notes += [PreviewRemark(one.type, shown(s), why) for s, why in made.missing.items()]
    found.notes += [
        PreviewRemark(one.type, shown(setting), f"not restored yet: {why}")
        for setting, why in made.pending.items()
    ]
    found.notes += [PreviewRemark(one.type, "", note) for note in made.notes]


def _guest_section(one: PreviewedInstance, found: SwitchPreview) -> Iterable[GuestSection]:
    policy, devices, errors = one.plugin.asked(one.instance)
    found.refused += [_bad(one, error) for error in errors]
    if policy is not None and devices is not None:
        yield GuestSection(one.type, one.name, devices, policy)


def _bad(one: PreviewedInstance, error: OptionError) -> PreviewRemark:
    return PreviewRemark(one.type, "", f"{error}; no setting of [{one.name}] is applied")
