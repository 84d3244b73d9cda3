# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt preview: show what a switch to a profile would change; changes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from tuned_virt.cli import json_output, plan, preview_guests, preview_text
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot
from tuned_virt.cli.daemon import Daemon, NotRunning
from tuned_virt.cli.preview_guests import PreviewedGuest
from tuned_virt.core.active_profile import NAMES
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.preview import Knowledge, PreviewedValue, PreviewRemark, SwitchPreview
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins import crash_guard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "profile",
        nargs="*",
        metavar="PROFILE",
        help="the profiles to switch to, of which the later takes precedence"
        " (virtual-host-plus or virtual-guest-plus, by this machine's role)",
    )
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Preview and print; 1 where something is refused. Raises CouldNot."""
    from tuned_virt.tuned_api.preview import last_switch, profile, switch
    from tuned_virt.tuned_api.preview.guard import Guard

    names = options.profile or [_by_role()]
    active, note = _active()
    with Guard().in_force():  # reading would set a damaged file aside
        guarded = crash_guard.paths(KernelFS(), Originals().record("crash_guard").originals)
        last = last_switch.read(Journal().entries())
    try:
        found, sections = switch.preview(active, names, guarded, last)
    except profile.CannotLoad as error:
        raise CouldNot(f"TuneD would refuse the switch: {error}") from error
    guests = preview_guests.guests(sections, found)
    if note:
        found.notes.insert(0, PreviewRemark("TuneD", "", note))
    if options.json:
        json_output.emit("preview", content(active, names, found, guests))
    else:
        preview_text.show(active, names, found, guests)
    return TO_REPORT if found.refused else FINE


def _by_role() -> str:
    try:
        return f"virtual-{systemd.role(KernelFS())}-plus"
    except systemd.RoleUnknown as error:
        raise CouldNot(f"name a profile: {error}") from error


def _active() -> tuple[list[str], str]:
    """The profiles that are applied now, and what is to be said of how that is known."""
    try:
        return Daemon().active_profile().split(), ""
    except NotRunning:
        return [], "it is not running, so no profile is applied now"
    except CouldNot as error:
        try:
            with open(NAMES, encoding="utf-8") as file:
                return file.read().split(), f"it was not asked ({error}); {NAMES} is believed"
        except OSError:
            return [], f"it was not asked ({error}); no profile is taken for active"


def content(
    active: list[str], names: list[str], found: SwitchPreview, guests: list[PreviewedGuest]
) -> Mapping[str, Any]:
    """A preview as JSON has it."""
    return {
        "active": active,
        "profiles": names,
        "changes": [_value(one) for one in found.changes],
        "unchanged": found.unchanged,
        "guests": [
            {**plan.placement_content(one.placement), "changes": bool(one.changes)}
            for one in guests
        ],
        "refused": [_remark(one) for one in found.refused],
        "not_known": [_remark(one) for one in found.not_known],
        "notes": [_remark(one) for one in found.notes],
    }


def _value(one: PreviewedValue) -> Mapping[str, Any]:
    line = one.wanted_by
    return {
        "plugin": one.plugin,
        "section": one.section or None,
        "setting": one.setting,
        "device": one.device or None,
        "path": one.path or None,
        "before": one.before.value if one.before.knowledge is Knowledge.KNOWN else None,
        "before_is": one.before.knowledge.value,
        "after": one.after.value if one.after.knowledge is Knowledge.KNOWN else None,
        "after_is": one.after.knowledge.value,
        "unit": one.unit or None,
        "file": line.file if line else None,
        "line": line.line if line else None,
        "text": line.text if line else None,
        "why": one.why or one.after.why or one.before.why or None,
    }


def _remark(one: PreviewRemark) -> Mapping[str, Any]:
    return {"plugin": one.plugin, "setting": one.setting or None, "reason": one.reason}
