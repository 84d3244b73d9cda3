# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt plan: show where guests' threads and memory would be placed; changes nothing."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tuned_virt import placement
from tuned_virt.cli import (
    fleet,
    hugepages_plan,
    json_output,
    plan_summary,
    plan_text,
    planning_input,
    settings_file,
    snapshot_file,
)
from tuned_virt.cli.common import COULD_NOT, FINE, TO_REPORT, CouldNot
from tuned_virt.cli.fleet import HostResult
from tuned_virt.cli.planning_input import PlanningInput
from tuned_virt.cli.snapshot_file import Snapshot
from tuned_virt.core import section_settings
from tuned_virt.core.device_filter import selects
from tuned_virt.core.options import BadOptions, template
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.model.guest import Guest
from tuned_virt.placement import Placement, PlacementKind, PlacementPlan
from tuned_virt.plugins.vm_pinning import already_running
from tuned_virt.plugins.vm_pinning import policy as pinning
from tuned_virt.plugins.vm_pinning.already_running import RunningDecision

OWN = ("running", "persist")
SETTABLE = (*placement.OPTIONS, "devices", *OWN)
"""Options of --set: the planner's, and which guests they are for; names are vm_pinning's."""


PLANNED = pinning.PinningPolicy(running=pinning.RunningGuests.PLACE)
"""Without a variables file guests that run are planned as if they had just started."""


@dataclass(frozen=True)
class PlanRequest:
    """One section's wish: the policy, and for which guests."""

    policy: pinning.PinningPolicy = PLANNED
    devices: str = "*"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    planning_input.add_sources(parser)
    parser.add_argument(
        "--snapshot",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="hosts with their guests, as written by tuned-virt snapshot; --json: a line per host",
    )
    fleet.add_options(parser, "plan")
    add_policy(parser)
    output = parser.add_mutually_exclusive_group()
    json_output.add_option(output)
    output.add_argument(
        "--cmdline",
        action="store_true",
        help="print the kernel arguments for huge pages of 1G and more, as tuned-virt"
        " hugepages cmdline does; --set then takes options of hugepages_numa",
    )
    parser.set_defaults(**hugepages_plan.THIS_MACHINE)


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Options that say by which policy."""
    parser.add_argument(
        "--policy",
        metavar="VARIABLES.conf",
        help="plan as vm_pinning would with the profile's variables file",
    )
    parser.add_argument(
        "--set",
        metavar="OPTION=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help=f"one of {', '.join(SETTABLE)}",
    )


def run(options: argparse.Namespace) -> int:
    """Read, plan and print; exit 1 where a guest that was to be placed is not."""
    fleet.refuse_without(options)
    if options.cmdline:
        if options.host or options.guest or options.snapshot or options.snapshots:
            raise CouldNot(
                "--cmdline is for the kernel of this host: do not give files of other hosts"
            )
        return hugepages_plan.run_cmdline(options)
    asked = read_asked(options.policy, options.set)
    if options.snapshots:
        fleet.refuse_beside(options, "host", "guest", "snapshot")
        return fleet.run("plan", options, functools.partial(_of_host, asked=asked))
    if options.snapshot:
        return _fleet(options.snapshot, asked, options.json)
    gathered = planning_input.gather(options.host, options.guest)
    made = planned(gathered, asked)
    if options.json:
        json_output.emit("plan", _content(gathered, made))
    else:
        plan_text.show(gathered, made, asked.policy.persist, later(gathered, asked))
    return FINE if made.complete else TO_REPORT


def _fleet(files: list[str], asked: PlanRequest, for_programs: bool) -> int:
    """Each host's plan, as JSON on a line; why a file cannot be read, and the rest go on."""
    code = FINE
    for file in files:
        try:
            gathered = snapshot_file.load(file).planning()
            made = planned(gathered, asked)
        except CouldNot as error:
            if for_programs:
                json_output.emit_line("plan", {"host": file, "error": str(error)})
            print(f"tuned-virt: {error}", file=sys.stderr)
            code = COULD_NOT
            continue
        if for_programs:
            json_output.emit_line("plan", {"host": file, **_content(gathered, made)})
        else:
            if len(files) > 1:
                print(f"host {file}:")
            plan_text.show(gathered, made, asked.policy.persist, later(gathered, asked))
        code = max(code, FINE if made.complete else TO_REPORT)
    return code


def _of_host(known: Snapshot, asked: PlanRequest) -> HostResult:
    """A host's plan, for a fleet's."""
    gathered = known.planning()
    made = planned(gathered, asked)
    content = {"host_name": known.host_name, **_content(gathered, made)}
    return HostResult(content, FINE if made.complete else TO_REPORT)


# --- what is asked --------------------------------------------------------------------------------


def read_asked(file: str | None, settings: list[str]) -> PlanRequest:
    """What a settings file asks as vm_pinning reads it, with OPTION=VALUE on top.

    Raises CouldNot.
    """
    return _set(_of_file(Path(file)) if file else PlanRequest(), settings)


def _of_file(file: Path) -> PlanRequest:
    found = settings_file.checked(pinning.NAMES, pinning.OPTIONS, file)
    try:
        policy = pinning.parse(section_settings.combined(pinning.OPTIONS, found, {}))
    except BadOptions as bad:
        raise settings_file.refused(found, bad, {}) from bad
    return PlanRequest(policy, section_settings.selection("*", found) or "*")


def _set(asked: PlanRequest, settings: list[str]) -> PlanRequest:
    values = {}
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise CouldNot(f"--set {setting}: write it as OPTION=VALUE")
        if template(name) not in SETTABLE:
            raise CouldNot(f"--set {setting}: no such option; use one of {', '.join(SETTABLE)}")
        values[name] = value
    devices = values.pop("devices", asked.devices)
    own = {name: values.pop(name) for name in OWN if name in values}
    try:
        parsed = pinning.parse(own)
        changes = {name: getattr(parsed, name) for name in own}
        placing = placement.changed(asked.policy.placement, values)
        return PlanRequest(replace(asked.policy, placement=placing, **changes), devices)
    except BadOptions as error:
        raise CouldNot(str(error)) from error


# --- the plan -------------------------------------------------------------------------------------


def planned(gathered: PlanningInput, *asked: PlanRequest) -> PlacementPlan:
    """The plan that vm_pinning would come to, with what could not be read among the warnings.

    Of several sections the first that selects a guest is the guest's.
    """
    wishes = {guest.key: _wish(guest, asked) for guest in gathered.guests}
    decided = {one.key: _decided(one, gathered, wishes[one.key]) for one in gathered.guests}
    policies = {key: one.policy for key, one in decided.items() if one.policy is not None}
    host = placement.for_guests(gathered.host, gathered.guests)
    made = placement.plan(host, gathered.guests, policies, gathered.current)
    placements = tuple(
        _as_decided(one, decided[key], _when(key, gathered, wishes[key]))
        for one in made.placements
        for key in (one.uuid or one.guest,)
    )
    return PlacementPlan(placements, (*gathered.notes, *made.warnings))


def _wish(guest: Guest, asked: Sequence[PlanRequest]) -> PlanRequest:
    fitting = (one for one in asked if selects(one.devices, (guest.name, guest.uuid)))
    return next(fitting, asked[0])


def _when(key: str, gathered: PlanningInput, asked: PlanRequest) -> str:
    """When a guest is placed, "" for at once."""
    if asked.policy.grace and key not in gathered.now:
        return f"{asked.policy.grace} s after its start (grace): "
    if key in later(gathered, asked):
        return "when it starts again (persist=config): "
    return ""


def _decided(guest: Guest, gathered: PlanningInput, asked: PlanRequest) -> RunningDecision:
    if not selects(asked.devices, (guest.name, guest.uuid)):
        return RunningDecision(why=f"not selected by devices={asked.devices}")
    if guest.key not in gathered.now or guest.key in gathered.current:
        return RunningDecision(asked.policy.placement)
    return already_running.decide(asked.policy, guest)


def _as_decided(one: Placement, decided: RunningDecision, when: str) -> Placement:
    if one.kind is PlacementKind.UNPLACED and decided.policy is None:
        return replace(one, why=decided.why)
    placed = already_running.bound(one, decided.node, decided.ungranted)
    if placed.kind in (PlacementKind.UNPLACED, PlacementKind.OWNER):
        return placed
    return replace(placed, why=f"{when}{placed.why}")


def later(gathered: PlanningInput, asked: PlanRequest) -> Collection[str]:
    """Keys of running guests that the plugin leaves as they are until they start anew."""
    if asked.policy.persist is not pinning.Persist.CONFIG:
        return ()
    return gathered.now.keys() - gathered.current.keys()


def _content(gathered: PlanningInput, made: PlacementPlan) -> dict[str, Any]:
    cores = plan_summary.content(gathered.host, gathered.guests, made.placements)
    return {**content(made), "cores": cores}


def content(made: PlacementPlan) -> dict[str, Any]:
    """A plan as JSON has it."""
    return {
        "placements": [placement_content(one) for one in made.placements],
        "warnings": list(made.warnings),
    }


def placement_content(one: Placement) -> dict[str, Any]:
    """A guest's placement as JSON has it."""
    memory = one.memory
    return {
        "guest": one.guest,
        "uuid": one.uuid,
        "kind": one.kind.value,
        "nodes": list(one.nodes),
        "vcpus": {str(vcpu): cpus for vcpu, cpus in one.vcpus.items()},
        "emulator": one.emulator,
        "iothreads": {str(number): cpus for number, cpus in one.iothreads.items()},
        "memory": {"mode": memory.mode, "nodeset": memory.nodeset} if memory else None,
        "why": one.why,
        "ungranted": one.ungranted,
    }
