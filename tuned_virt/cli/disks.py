# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt disks: show each disk, its class, the guests it backs, its scheduler, and why."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuned_virt.cli import json_output, table
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot
from tuned_virt.core.guest_source import NO_GUESTS, FixedGuests
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import Values
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.libvirt_api.binding import missing
from tuned_virt.libvirt_api.guest_disks import GuestDiskReader, GuestDisks
from tuned_virt.model.host_facts import BackingDisk, Fact
from tuned_virt.plugins.blk_elevator_virt import (
    DiskState,
    Verdict,
    judge,
    policy,
    udev_events,
    udev_rules,
)
from tuned_virt.plugins.blk_elevator_virt import state as sysfs
from tuned_virt.plugins.blk_elevator_virt.plugin import DisksTuner, own_role
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy
from tuned_virt.plugins.blk_elevator_virt.policy_in_force import PolicyInForce

COLUMNS = ("<disk", "<class", "<decided by", "<backs", "<now", "<wanted", "<why")
"""Columns of the table, see `table.show`."""

NOT_ROOT = "run as root to include running guests that libvirt does not know"

NO_POLICY = "no active profile sets disks: this is the plan of [blk_elevator_virt] without options"


@dataclass(frozen=True)
class SeenDisks:
    """Disks as they were read, what is to become of each, and why.

    active   whether an active profile sets them
    """

    active: bool
    state: DiskState
    verdicts: list[Verdict]
    notes: tuple[str, ...]
    originals: Values

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "active": self.active,
            "role": self.state.role.value,
            "disks": [_disk(verdict, self.originals) for verdict in self.verdicts],
            "notes": list(self.notes),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    output = parser.add_mutually_exclusive_group()
    json_output.add_option(output)
    parser.add_argument(
        "--all", action="store_true", help="also show disks without a choice of schedulers"
    )
    output.add_argument(
        "--udev-rule",
        nargs="?",
        const="-",
        metavar="FILE",
        help="print, or write to a file, udev rules that set the same at boot, before TuneD"
        f" starts; install them as {udev_rules.FILE}",
    )


def run(options: argparse.Namespace) -> int:
    """Gather and print; changes nothing."""
    seen = look(KernelFS())
    if options.udev_rule:
        return _write_rule(options.udev_rule, seen.verdicts)
    if options.json:
        json_output.emit("disks", seen.content())
    else:
        _print(seen, seen.verdicts if options.all else _with_choice(seen.verdicts))
    differs = any(verdict.wanted not in ("", verdict.disk.scheduler) for verdict in seen.verdicts)
    return TO_REPORT if seen.active and differs else FINE


def look(fs: KernelFS) -> SeenDisks:
    """Every disk of this machine. Raises OriginalsError and KernelFileError."""
    active = in_force()
    asked = active or policy.defaults()
    tuner = DisksTuner(_libvirt() if asked.asks_users(own_role(fs)) else NO_GUESTS)
    originals = Originals().record(tuner.name).originals
    state = tuner.read(fs, asked, originals)
    notes = tuner.decide(asked, state, originals).notes
    return SeenDisks(active is not None, state, judge(asked, state, originals), notes, originals)


def backing(fs: KernelFS) -> Fact[Mapping[str, BackingDisk]]:
    """Disks that guests are on, by name, for the audit."""
    found = in_use(fs)
    if found.value is None:
        return Fact(None, found.why)
    disks = {
        one.disk.name: BackingDisk(one.users, one.disk.scheduler, one.wanted, one.why)
        for one in found.value.verdicts
    }
    return Fact(disks, "")


@dataclass(frozen=True)
class DisksInUse:
    """What guests are on.

    verdicts  disks of this host, with the guests' names
    others    guests by what is no disk of this host, or is not followed to one
    """

    verdicts: list[Verdict]
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def in_use(fs: KernelFS) -> Fact[DisksInUse]:
    """What guests are on."""
    asked = in_force() or policy.defaults()
    if not asked.asks_users(own_role(fs)):
        return Fact(None, "the active profile does not ask which disks guests are on")
    tuner = DisksTuner(_libvirt())
    try:
        originals = Originals().record(tuner.name).originals
        state = tuner.read(fs, asked, originals)
    except (OriginalsError, KernelFileError) as error:
        return Fact(None, str(error))
    used = [one for one in judge(asked, state, originals) if one.users]
    others = {f"on the network: {what}": names for what, names in state.network.items()}
    return Fact(DisksInUse(used, {**others, **state.unfollowed}), "")


def in_force() -> DiskPolicy | None:
    """The policy that a running TuneD keeps up, None where none does."""
    return PolicyInForce().load() if Originals().holder(DisksTuner.name) else None


def _write_rule(file: str, verdicts: list[Verdict]) -> int:
    text = udev_rules.rule_file(verdicts, udev_events.properties, os.uname().release)
    if file == "-":
        print(text, end="")
        return FINE
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error
    print(f"{file} is written; to load it now: udevadm control --reload")
    return FINE


def _libvirt() -> FixedGuests[GuestDisks]:
    return FixedGuests(GuestDiskReader().once(), missing() or "libvirt does not answer")


def _with_choice(verdicts: list[Verdict]) -> list[Verdict]:
    """Without what nothing can be chosen for and no guest uses: zram, loop devices not in use."""
    return [verdict for verdict in verdicts if verdict.disk.offered or sysfs.is_layer(verdict.disk)]


def _disk(verdict: Verdict, originals: Values) -> dict[str, Any]:
    disk = verdict.disk
    return {
        "disk": disk.name,
        "class": disk.attached.kind.value,
        "emulated": disk.attached.emulated,
        "fact": disk.attached.fact,
        "backs": list(verdict.users),
        "made_of": list(disk.slaves),
        "queues": disk.queues,
        "offered": list(disk.offered),
        "scheduler": disk.scheduler,
        "wanted": verdict.wanted,
        "option": verdict.option,
        "why": verdict.why,
        "remark": verdict.remark or verdict.lacking or disk.trouble,
        "before": originals.get(f"{disk.key}/scheduler"),
    }


def _beside_class(verdict: Verdict) -> str:
    """Why, where the disk's class is told already."""
    return verdict.why.removeprefix(f"{verdict.disk.attached.kind.value}: ")


def _print(seen: SeenDisks, verdicts: list[Verdict]) -> None:
    if not seen.active:
        print(NO_POLICY)
    table.show(
        COLUMNS,
        (
            (
                verdict.disk.name,
                verdict.disk.attached.kind.value,
                verdict.disk.attached.fact,
                ", ".join(verdict.users) or None,
                verdict.disk.scheduler or None,
                verdict.wanted or None,
                verdict.remark or verdict.lacking or _beside_class(verdict),
            )
            for verdict in verdicts
        ),
    )
    for note in (*seen.notes, *([NOT_ROOT] if os.geteuid() else [])):
        print(f"note  {note}")
