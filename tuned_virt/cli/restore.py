# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt restore: restore the original values without TuneD.

For a TuneD that was killed, or that was started again with another profile.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tuned_virt.cli import json_output
from tuned_virt.cli.activation import Machine
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot
from tuned_virt.core import active_profile, profile_dirs
from tuned_virt.core.engine import Engine
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import OriginalsError, PluginOriginals, UnheldOriginals
from tuned_virt.core.plan import Values, shown
from tuned_virt.core.system_root import OutsideRootError
from tuned_virt.core.tuner import Registered, Tuner
from tuned_virt.guests.restore import GuestRestore, LibvirtQuestions
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.registry import tuners

NO_SUCH = "this machine has no such setting"

ENDED, STARTING = "ended", "starting"
"""What a TuneD has done whose leftovers are put back; the values of --leftover."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    unmerge = parser.add_mutually_exclusive_group()
    unmerge.add_argument(
        "--unmerge",
        action="store_const",
        const="allow",
        default="never",
        help="unmerge KSM's pages if a setting cannot be restored otherwise and there is"
        " enough memory (spreads them over all NUMA nodes)",
    )
    unmerge.add_argument(
        "--force-unmerge",
        action="store_const",
        const="force",
        dest="unmerge",
        help="the same even if the host has not enough memory, which may then swap, or kill"
        " guests; what does not fit into a memory cgroup's limit stays refused",
    )
    parser.add_argument(
        "--leftover",
        nargs="?",
        choices=(ENDED, STARTING),
        const=ENDED,
        help="restore only settings that no running TuneD manages, and nothing while systemd"
        " restarts TuneD; ended (the default): after TuneD has ended; starting: while TuneD"
        " starts: skips plugins of the active profile, which restore their own settings",
    )
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Put back and say what. Raises CouldNot and OriginalsError."""
    if os.geteuid() != 0:
        raise CouldNot("root is required: sudo tuned-virt restore")
    if not options.json:
        return _run(options)
    before = UnheldOriginals().all()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = _run(options)
    content = _content(before, UnheldOriginals().all())
    json_output.emit("restore", {**content, "notes": said.getvalue().splitlines()})
    return code


def _content(
    before: Mapping[str, PluginOriginals], after: Mapping[str, PluginOriginals]
) -> dict[str, Any]:
    """What was restored, and what could not be."""
    kept = {
        (plugin, setting): record.pending.get(setting, "")
        for plugin, record in after.items()
        for setting in record.originals
    }
    restored = [
        {"plugin": plugin, "setting": shown(setting)}
        for plugin, record in before.items()
        for setting in record.originals
        if (plugin, setting) not in kept
    ]
    pending = [
        {"plugin": plugin, "setting": shown(setting), "why": why}
        for (plugin, setting), why in kept.items()
    ]
    return {"changed": bool(restored), "restored": restored, "pending": pending}


def _run(options: argparse.Namespace) -> int:
    if options.leftover and systemd.restarting():
        return FINE
    if options.leftover:
        _remember_profile()
    if options.leftover == ENDED and profile_dirs.stays_applied(_main_conf()):
        return FINE
    return put_back(options.leftover, options.unmerge)


def _remember_profile() -> None:
    """What TuneD applies now is what `disable` returns to, if one of ours is next.

    At its end too: in one-shot mode systemd does not see TuneD as started.
    """
    with contextlib.suppress(CouldNot):
        machine = Machine()
        try:
            active_profile.remember(machine.active(), machine.profiles)
        except (OSError, OutsideRootError) as error:
            active_profile.say_not_recorded(error)


def _main_conf() -> str:
    file = Path(profile_dirs.MAIN)
    return file.read_text(errors="replace") if file.is_file() else ""


def put_back(leftover: str | None, unmerge: str) -> int:
    """Put back, whatever TuneD is told to leave at its end, and say what; arguments as in `run`."""
    baseline = UnheldOriginals()
    records = baseline.all()
    held = {plugin: pid for plugin in records if (pid := baseline.holder(plugin))}
    if held and not leftover:
        pid = next(iter(held.values()))
        raise CouldNot(f"TuneD (pid {pid}) manages {', '.join(held)}: to restore: tuned-adm off")
    spared = _of_active_profile() if leftover == STARTING else set()
    free = {
        plugin: record
        for plugin, record in records.items()
        if plugin not in held and _plugin(plugin) not in spared
    }
    remarks = baseline.remarks()
    if not free and not leftover and not remarks:
        print("nothing to restore")
    taken = [plugin for plugin in _ordered(free) if _take(baseline, plugin)]
    for plugin in taken:
        _restore_kernel(baseline, plugin)
    with LibvirtQuestions() as libvirt:
        codes = [_restore(baseline, plugin, free[plugin], unmerge, libvirt) for plugin in taken]
    codes += [TO_REPORT] if len(taken) < len(free) else []
    remarks = baseline.remarks()  # it may have been set aside meanwhile
    print(*remarks, sep="\n", end="\n" if remarks else "")
    return TO_REPORT if remarks else max(codes, default=FINE)


def held_needlessly(active: Collection[str]) -> bool:
    """Whether a TuneD still holds what none of these profiles uses. Raises OriginalsError."""
    baseline, used = UnheldOriginals(), _plugins_of(InstalledProfiles(), active)
    return any(baseline.holder(name) for name in baseline.all() if _plugin(name) not in used)


def _of_active_profile() -> set[str]:
    """Plugins that TuneD is about to load, or has loaded; none where there is no TuneD.

    Raises CouldNot where that cannot be read: what it will restore itself must not be restored.
    """
    try:
        machine = Machine()
    except CouldNot:
        return set()
    try:
        return _plugins_of(machine.profiles, machine.active().all)
    except (OSError, OutsideRootError) as error:
        raise CouldNot(
            f"nothing is restored, because the active profile cannot be read: {error}"
        ) from error


def _plugins_of(profiles: InstalledProfiles, names: Iterable[str]) -> set[str]:
    return {plugin for name in names for plugin in profiles.plugins(name)}


def _plugin(record: str) -> str:
    return (tuners()[record].part_of if record in tuners() else "") or record


def _ordered(records: dict[str, PluginOriginals]) -> list[str]:
    known = [plugin for plugin in tuners() if plugin in records]
    return known + [plugin for plugin in records if plugin not in tuners()]


def _take(baseline: UnheldOriginals, plugin: str) -> bool:
    """Hold a plugin's tuning, unless another process has come to hold it; that is said."""
    holder = baseline.take_free(plugin)
    if holder is not None:
        print(f"{plugin}: process {holder} has taken over meanwhile")
    return holder is None


def _restore_kernel(baseline: UnheldOriginals, plugin: str) -> None:
    """The kernel's settings of a plugin for guests: nobody waits for libvirt with them."""
    tuner = tuners().get(plugin)
    if isinstance(tuner, GuestRestore):
        tuner.restore_kernel(KernelFS(), baseline, Journal())


def _restore(
    baseline: UnheldOriginals,
    plugin: str,
    before: PluginOriginals,
    unmerge: str,
    libvirt: LibvirtQuestions,
) -> int:
    if plugin not in tuners():
        print(f"{plugin}: {', '.join(before.originals)}: only its own TuneD plugin can restore it")
        return TO_REPORT
    tuner = tuners()[plugin]
    policy = tuner.parse({"unmerge": unmerge}) if isinstance(tuner, Tuner) else None
    try:
        if isinstance(tuner, GuestRestore):
            tuner.restore(KernelFS(), baseline, Journal(), libvirt)
        else:
            engine = Engine(tuner, KernelFS(), baseline, Journal())
            for change in engine.restore(policy).made:
                print(f"{plugin}: {change}")
        after = baseline.record(plugin)
    except OriginalsError as error:
        print(f"{plugin}: {error}")
        return TO_REPORT
    returned = sorted(before.originals.keys() - after.originals.keys())
    gone = _gone(tuner, policy, before.originals, returned) if returned else {}
    for setting in returned:
        text = before.originals[setting]
        what = "is" if text.startswith("{") else f"is '{text}'"  # a guest's is long
        said = f": nothing to restore: {gone[setting]}" if setting in gone else f" {what} as before"
        print(f"{plugin}: {shown(setting)}{said}")
    return TO_REPORT if after.originals else FINE


def _gone(tuner: Registered, policy: object, before: Values, returned: Iterable[str]) -> Values:
    """Why settings are let go that are not there to be restored; those that are, are left out."""
    if isinstance(tuner, GuestRestore):
        return dict.fromkeys(tuner.strange(returned), NO_SUCH)
    assert isinstance(tuner, Tuner)
    fs = KernelFS()
    try:
        state = tuner.look(fs, policy, before)
    except KernelFileError:
        return {}  # what was restored has been read back
    found = tuner.values(state)
    return {one: tuner.gone(state, one) or NO_SUCH for one in returned if one not in found}
