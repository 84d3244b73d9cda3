# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt restore: put everything back as it was before tuning, without TuneD.

For a TuneD that was killed, or that was started again with another profile.
"""

from __future__ import annotations

import argparse
import os

from tuned_virt.cli.activation import Machine
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot
from tuned_virt.core.engine import Engine
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError, PluginOriginals
from tuned_virt.core.plan import shown
from tuned_virt.guests.restore import GuestRestore, LibvirtQuestions
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFS
from tuned_virt.registry import tuners

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
        help="unmerge KSM's pages where a setting cannot be put back otherwise, if memory allows"
        " (which spreads them over all NUMA nodes)",
    )
    unmerge.add_argument(
        "--force-unmerge",
        action="store_const",
        const="force",
        dest="unmerge",
        help="the same also where the pages would not fit into memory: the host may swap, or kill"
        " guests for want of memory",
    )
    parser.add_argument(
        "--leftover",
        nargs="?",
        choices=(ENDED, STARTING),
        const=ENDED,
        help="only what no running TuneD holds, and nothing while systemd restarts TuneD; ended"
        " (the default): after a TuneD has ended; starting: while one starts, so nothing of"
        " plugins of the active profile, which see to it themselves",
    )


def run(options: argparse.Namespace) -> int:
    """Put back and say what. Raises CouldNot and OriginalsError."""
    if os.geteuid() != 0:
        raise CouldNot("only root may: sudo tuned-virt restore")
    if options.leftover and systemd.restarting():
        return FINE
    baseline = Originals()
    records = baseline.all()
    held = {plugin: pid for plugin in records if (pid := baseline.holder(plugin))}
    if held and not options.leftover:
        pid = next(iter(held.values()))
        raise CouldNot(f"TuneD (pid {pid}) holds {', '.join(held)}: tuned-adm off puts it back")
    spared = _of_active_profile() if options.leftover == STARTING else set()
    free = {
        plugin: record
        for plugin, record in records.items()
        if plugin not in held and _plugin(plugin) not in spared
    }
    if not free and not options.leftover:
        print("nothing to put back")
    with LibvirtQuestions() as libvirt:
        codes = [
            _restore(baseline, plugin, free[plugin], options.unmerge, libvirt)
            for plugin in _ordered(free)
        ]
    remarks = baseline.remarks()
    print(*remarks, sep="\n", end="\n" if remarks else "")
    return TO_REPORT if remarks else max(codes, default=FINE)


def _of_active_profile() -> set[str]:
    """Plugins that TuneD is about to load, or has loaded."""
    try:
        machine = Machine()
        return {plugin for name in machine.active() for plugin in machine.plugins(name)}
    except CouldNot:
        return set()


def _plugin(record: str) -> str:
    return (tuners()[record].part_of if record in tuners() else "") or record


def _ordered(records: dict[str, PluginOriginals]) -> list[str]:
    known = [plugin for plugin in tuners() if plugin in records]
    return known + [plugin for plugin in records if plugin not in tuners()]


def _restore(
    baseline: Originals,
    plugin: str,
    before: PluginOriginals,
    unmerge: str,
    libvirt: LibvirtQuestions,
) -> int:
    if plugin not in tuners():
        print(f"{plugin}: {', '.join(before.originals)}: only its own TuneD plugin can put it back")
        return TO_REPORT
    tuner = tuners()[plugin]
    try:
        if isinstance(tuner, GuestRestore):
            tuner.restore(KernelFS(), baseline, Journal(), libvirt)
        else:
            engine = Engine(tuner, KernelFS(), baseline, Journal())
            for change in engine.restore(tuner.parse({"unmerge": unmerge})).made:
                print(f"{plugin}: {change}")
        after = baseline.record(plugin)
    except OriginalsError as error:
        print(f"{plugin}: {error}")
        return TO_REPORT
    for setting in sorted(before.originals.keys() - after.originals.keys()):
        text = before.originals[setting]
        what = "is" if text.startswith("{") else f"is '{text}'"  # a guest's is long
        print(f"{plugin}: {shown(setting)} {what} as before")
    return TO_REPORT if after.originals else FINE
