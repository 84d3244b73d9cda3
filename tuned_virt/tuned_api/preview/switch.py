# SPDX-License-Identifier: GPL-2.0-or-later
"""A switch over a shadow of the kernel: the active profile undone, then the new one applied."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuned import consts

from tuned_virt.core.preview import (
    PreviewedValue,
    PreviewRemark,
    Reading,
    SwitchPreview,
    known,
    original,
    unknown,
)
from tuned_virt.tuned_api.preview import last_switch, origin, ours, special
from tuned_virt.tuned_api.preview.instances import ProfileInstances
from tuned_virt.tuned_api.preview.last_switch import LastSwitch
from tuned_virt.tuned_api.preview.modifiers import AgainstOriginals, AskedByActive
from tuned_virt.tuned_api.preview.ours import GuestSection
from tuned_virt.tuned_api.preview.profile import CannotLoad, MergedProfile, load
from tuned_virt.tuned_api.preview.shadow import COUPLED, Shadow, ShadowWrite, reading

ONLY_TUNED = "TuneD puts the original back, which only its process knows"


@dataclass
class ActiveTuning:
    """What the active profile has set: the values it asked for by path, and its sections."""

    asked: dict[str, str] = field(default_factory=dict)
    writes: dict[str, ShadowWrite] = field(default_factory=dict)
    instances: ProfileInstances | None = None


def preview(
    active: Sequence[str],
    names: Sequence[str],
    guarded: Mapping[str, str],
    last: LastSwitch | None = None,
) -> tuple[SwitchPreview, list[GuestSection]]:
    """What switching would change, and the new profile's sections for guests.

    `active` are the profiles that are applied now, `guarded` originals that crash_guard has kept,
    `last` the switch to the active ones.
    Raises CannotLoad where TuneD would refuse the new profile.
    """
    found = SwitchPreview()
    before = _active(active, found)
    shadow = Shadow()
    loaded = load(names, shadow, before.instances.loaded if before.instances else None)
    if not _guards(loaded, before):
        guarded = {}
    shadow.values.update(guarded)
    only_tuned = {
        path: text
        for path, text in before.asked.items()
        if path not in guarded and path not in special.REQUESTS and _original(path, text) is None
    }
    new = ProfileInstances(loaded, shadow, AgainstOriginals(shadow, only_tuned))
    new.apply()
    _remarks(new, found)
    found.values += _values(new, before, guarded)
    if last and before.instances:
        _edited_since(last, before.instances, bool(guarded), found)
    guests = ours.plan(new, before.instances, found)
    found.values = _by_path(found.values)
    return found, guests


def _guards(loaded: MergedProfile, before: ActiveTuning) -> bool:
    """Whether either profile has crash_guard put back the originals that it has kept."""
    active = before.instances.loaded.merged.units.values() if before.instances else ()
    return any(unit.type == ours.CRASH_GUARD for unit in (*loaded.merged.units.values(), *active))


def _active(names: Sequence[str], found: SwitchPreview) -> ActiveTuning:
    """The active profile applied once more, to see what it has touched."""
    if not names:
        return ActiveTuning()
    shadow = Shadow()
    modifiers = AskedByActive(shadow)
    try:
        loaded = load(names, shadow)
        loaded.config._cfg[consts.CFG_REAPPLY_SYSCTL] = "0"  # is not undone
        instances = ProfileInstances(loaded, shadow, modifiers)
        instances.apply()
    except CannotLoad as error:
        reason = f"what it has set, for it cannot be loaded any more: {error}"
        found.not_known.append(PreviewRemark(" ".join(names), "", reason))
        return ActiveTuning()
    for remark in instances.not_known:
        reason = f"set by the active profile, and undone: {remark.reason}"
        found.not_known.append(replace(remark, reason=reason))
    writes = {one.path: one for one in shadow.writes if not one.refused}
    asked = {path: one.value for path, one in writes.items()}
    return ActiveTuning({**asked, **modifiers.asked}, writes, instances)


def _original(path: str, asked: str) -> str | None:
    """The value before TuneD where what is there now tells it."""
    found = original(asked, reading(path).value)
    return None if found is None else str(found)


# --- values ---------------------------------------------------------------------------------------


def _values(
    new: ProfileInstances, before: ActiveTuning, guarded: Mapping[str, str]
) -> Iterable[PreviewedValue]:
    """What the new profile writes, then what only the active one did."""
    last = {one.path: one for one in new.shadow.writes if not one.refused}
    for path, write in last.items():
        now = _now(path, before)
        after = unknown(write.unknown) if write.unknown else known(write.value)
        plugin, setting, line = origin.of(new, write)
        why = _coupled(path, write, new)
        if why and now.value == "0":
            continue
        names = (plugin, write.section, setting, path)
        yield PreviewedValue(*names, now, after, why, line, write.device)
    for path in [*before.writes, *(path for path in guarded if path not in before.writes)]:
        if path not in last:
            yield _returning(path, before, guarded)


def _now(path: str, before: ActiveTuning) -> Reading:
    if path in special.REQUESTS:
        write = before.writes.get(path)
        return special.request(path, write.value if write else None)
    return reading(path)


def _returning(path: str, before: ActiveTuning, guarded: Mapping[str, str]) -> PreviewedValue:
    """A value that the active profile has set and the new one does not."""
    now, asked = _now(path, before), before.asked.get(path, "")
    if path in special.REQUESTS:
        after = known(special.REQUESTS[path])
    elif path in guarded:
        after = known(guarded[path])
    elif _original(path, asked) is not None:
        after = now
    else:
        after = unknown(ONLY_TUNED)
    plugin, setting, device = ours.CRASH_GUARD, origin.sysctl_name(path), ""
    if before.instances is not None and path in before.writes:
        plugin, setting, _ = origin.of(before.instances, before.writes[path])
        device = before.writes[path].device
    why = "its original value"
    return PreviewedValue(plugin, "", setting, path, now, after, why, None, device)


def _edited_since(
    last: LastSwitch, active: ProfileInstances, guarded: bool, found: SwitchPreview
) -> None:
    """Add what the active profile's files do not tell any more; crash_guard's originals would."""
    edited = last.edited(active.loaded.files)
    if not edited:
        return
    told = {(one.setting, one.device) for one in found.values}
    returning = [] if guarded else list(last.returning())
    found.values += [one for one in returning if (one.setting, one.device) not in told]
    found.not_known.append(last_switch.remark(edited, bool(returning)))


def _coupled(path: str, write: ShadowWrite, new: ProfileInstances) -> str:
    """Why the kernel zeroes a value that nobody asks to be 0."""
    other = COUPLED.get(path)
    if other and write.value == "0" and any(one.path == other for one in new.shadow.writes):
        return f"the kernel zeroes it when {os.path.basename(other)} is set"
    return ""


def _by_path(values: Iterable[PreviewedValue]) -> list[PreviewedValue]:
    """One value a file: what the plugins that come later do to it counts."""
    found: dict[tuple[str, ...], PreviewedValue] = {}
    for value in values:
        named = (value.plugin, value.section, value.setting, value.device)
        key = (value.path,) if value.path else named
        earlier = found.pop(key, None)
        found[key] = replace(value, before=earlier.before) if earlier else value
    return list(found.values())


# --- remarks --------------------------------------------------------------------------------------


def _remarks(new: ProfileInstances, found: SwitchPreview) -> None:
    """What is refused, and what cannot be told, of the new profile's own sections of TuneD's."""
    types = {one.name: one.type for one in new.instances}
    mine = {one.name for one in new.ours}
    found.refused += [*new.refused, *_refused(new)]
    found.not_known += [*new.not_known, *_not_run(new)]
    found.not_known += [
        PreviewRemark(one.type, "", one.broken) for one in new.instances if one.broken
    ]
    for message in dict.fromkeys(new.shadow.messages):
        if message.section not in mine and special.LATENCY not in message.text:
            plugin = types.get(message.section, message.section or "profile")
            remark = PreviewRemark(plugin, "", f"TuneD says: {message.text}")
            (found.refused if message.level >= logging.ERROR else found.notes).append(remark)


def _refused(new: ProfileInstances) -> Iterable[PreviewRemark]:
    for write in new.shadow.writes:
        if write.refused:
            plugin, setting, _ = origin.of(new, write)
            reason = f"'{write.value}' is not set: {write.refused}"
            device = f"{write.device} " if write.device else ""
            yield PreviewRemark(plugin, f"{device}{setting}", reason)


def _not_run(new: ProfileInstances) -> Iterable[PreviewRemark]:
    """Programs that TuneD runs and a preview does not."""
    types = {one.name: one.type for one in new.instances}
    for name in new.loaded.skipped:
        yield PreviewRemark("include", name, "whether a profile is included")
    for reason in dict.fromkeys(new.shadow.not_run):
        yield PreviewRemark("profile", "", reason)
    for section, what in dict.fromkeys(new.shadow.stopped):
        if special.LATENCY not in what:
            reason = f"TuneD's plugin asks for «{what}», which a preview does not do"
            yield PreviewRemark(types.get(section, section), "", reason)
