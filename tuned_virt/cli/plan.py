# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt plan: show where vCPUs, emulator, IOThreads and memory would go; changes nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuned_virt import placement
from tuned_virt.cli import hugepages_plan, plan_text, planning_input, snapshot, variables
from tuned_virt.cli.common import COULD_NOT, FINE, TO_REPORT, CouldNot, print_json
from tuned_virt.cli.planning_input import PlanningInput
from tuned_virt.core.device_filter import selects
from tuned_virt.core.options import BadOptions
from tuned_virt.model.guest import Guest
from tuned_virt.placement import (
    Placement,
    PlacementKind,
    PlacementMode,
    PlacementPlan,
    PlacementPolicy,
)
from tuned_virt.plugins.vm_pinning import policy as pinning
from tuned_virt.plugins.vm_pinning.placement_controller import bound, local_node, spread

SETTABLE = (*placement.OPTIONS, "devices", "running")
"""Options of --set: the planner's, and which guests they are for; names are vm_pinning's."""


@dataclass(frozen=True)
class PlanRequest:
    """One section's wish: the policy, for which guests, and what becomes of those that run."""

    policy: PlacementPolicy = field(default_factory=PlacementPolicy)
    devices: str = "*"
    running: pinning.RunningGuests = pinning.RunningGuests.PLACE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    snapshot.add_sources(parser)
    parser.add_argument(
        "--snapshot",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="hosts with their guests as tuned-virt snapshot wrote them; one JSON line a host",
    )
    add_policy(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print for programs")
    output.add_argument(
        "--cmdline",
        action="store_true",
        help="print what the kernel's command line wants for huge pages of 1G and more, as"
        " tuned-virt hugepages cmdline does; --set then has options of hugepages_numa",
    )


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
    if options.cmdline:
        if options.host or options.guest or options.snapshot:
            raise CouldNot("--cmdline is for the kernel of this host: leave out files of others")
        return hugepages_plan.run_cmdline(options)
    asked = read_asked(options.policy, options.set)
    if options.snapshot:
        return _fleet([Path(name) for name in options.snapshot], asked)
    gathered = planning_input.gather(options.host, options.guest)
    made = planned(gathered, asked)
    if options.json:
        print_json(content(made))
    else:
        plan_text.show(gathered, made)
    return FINE if made.complete else TO_REPORT


def _fleet(files: list[Path], asked: PlanRequest) -> int:
    """One JSON line a host; a file that cannot be read is said in its line, and the rest go on."""
    code = FINE
    for file in files:
        try:
            made = planned(snapshot.load(file), asked)
        except CouldNot as error:
            print(json.dumps({"host": str(file), "error": str(error)}))
            code = COULD_NOT
            continue
        print(json.dumps({"host": str(file), **content(made)}))
        code = max(code, FINE if made.complete else TO_REPORT)
    return code


# --- what is asked --------------------------------------------------------------------------------


def read_asked(file: str | None, settings: list[str]) -> PlanRequest:
    """What a variables file asks as vm_pinning reads it, with OPTION=VALUE on top.

    Without a file guests that run are planned as if they had just started. Raises CouldNot.
    """
    return _set(_of_file(Path(file)) if file else PlanRequest(), settings)


def _of_file(file: Path) -> PlanRequest:
    names = {f"{pinning.VARIABLES}{name}": name for name in (*pinning.OPTIONS, "devices")}
    lines = {names[one.name]: one for one in variables.read(file) if one.name in names}
    texts = {**pinning.IN_PROFILE, **{name: one.value for name, one in lines.items()}}
    devices = texts.pop("devices")
    try:
        parsed = pinning.parse(texts)
    except BadOptions as bad:
        said = (f"{file}: line {lines[error.option].line}: {error}" for error in bad.errors)
        raise CouldNot("\n".join(said)) from bad
    return PlanRequest(parsed.placement, devices, parsed.running)


def _set(asked: PlanRequest, settings: list[str]) -> PlanRequest:
    values = {}
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise CouldNot(f"--set {setting}: write it as OPTION=VALUE")
        if name not in SETTABLE:
            raise CouldNot(f"--set {setting}: no such option; there are {', '.join(SETTABLE)}")
        values[name] = value
    devices = values.pop("devices", asked.devices)
    running = {"running": values.pop("running")} if "running" in values else {}
    try:
        already = pinning.parse(running).running if running else asked.running
        return PlanRequest(placement.changed(asked.policy, values), devices, already)
    except BadOptions as error:
        raise CouldNot(str(error)) from error


# --- the plan -------------------------------------------------------------------------------------


def planned(gathered: PlanningInput, asked: PlanRequest) -> PlacementPlan:
    """The plan that vm_pinning would come to, with what could not be read among the warnings."""
    policies: dict[str, PlacementPolicy] = {}
    homes: dict[str, int] = {}
    left: dict[str, str] = {}
    now, current = gathered.now, gathered.current
    for guest in gathered.guests:
        if not selects(asked.devices, (guest.name, guest.uuid)):
            left[guest.key] = f"not selected by devices={asked.devices}"
        elif guest.key not in now or guest.key in current:
            policies[guest.key] = asked.policy
        else:
            _already(guest, asked, policies, homes, left)
    made = placement.plan(gathered.host, gathered.guests, policies, current)
    placements = tuple(_as_bound(one, homes, left) for one in made.placements)
    return PlacementPlan(placements, (*gathered.notes, *made.warnings))


def _already(
    guest: Guest,
    asked: PlanRequest,
    policies: dict[str, PlacementPolicy],
    homes: dict[str, int],
    left: dict[str, str],
) -> None:
    """A guest that ran before: placed, bound to its node, or left, as running= says."""
    node = local_node(guest.resident)
    if asked.running is pinning.RunningGuests.PLACE:
        policies[guest.key] = asked.policy
    elif asked.running is pinning.RunningGuests.LEAVE:
        left[guest.key] = "it ran before the profile came (running=leave): placed at its next start"
    elif node is None:
        left[guest.key] = f"it ran before, {spread(guest.resident)}"
    else:
        homes[guest.key] = node
        floats = asked.policy.policy is PlacementMode.DEDICATED
        mode = PlacementMode.NODE if floats else asked.policy.policy
        policies[guest.key] = replace(asked.policy, policy=mode)


def _as_bound(one: Placement, homes: Mapping[str, int], left: Mapping[str, str]) -> Placement:
    key = one.uuid or one.guest
    if one.kind is PlacementKind.UNPLACED and key in left:
        return replace(one, why=left[key])
    return bound(one, homes.get(key))


def content(made: PlacementPlan) -> dict[str, Any]:
    """A plan as JSON has it."""
    return {
        "placements": [_placement(one) for one in made.placements],
        "warnings": list(made.warnings),
    }


def _placement(one: Placement) -> dict[str, Any]:
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
    }
