# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt plan: where vCPUs, emulator, IOThreads and memory would go; changes nothing."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuned_virt.cli import snapshots, table
from tuned_virt.cli.common import COULD_NOT, FINE, TO_REPORT, CouldNot, print_json
from tuned_virt.guest import printable
from tuned_virt.options import BadOptions
from tuned_virt.placement import OPTIONS, Kind, Placement, Plan, Policy, parse, plan

NAME = "plan"

PREFIX = "placement_"
"""The planner's options are called so in the profile's variables file."""

COLUMNS: Mapping[str, bool] = {"node": False, "guest": True, "kind": True, "vCPUs": True}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument("--host", metavar="CAPABILITIES.xml", help="a host from a file, not this")
    parser.add_argument("--guest", metavar="DOMAIN.xml", nargs="+", action="extend", default=[])
    parser.add_argument(
        "--snapshot",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="hosts with their guests as tuned-virt snapshot wrote them; one JSON line a host",
    )
    parser.add_argument("--policy", metavar="VARIABLES.conf", help="options from such a file")
    parser.add_argument(
        "--set",
        metavar="OPTION=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help=f"one of {', '.join(OPTIONS)}",
    )
    parser.add_argument("--json", action="store_true", help="print for programs")


def run(options: argparse.Namespace) -> int:
    """Read, plan and print; exit 1 where a guest that was to be placed is not."""
    policy = read_policy(options.policy, options.set)
    if options.snapshot:
        return _fleet([Path(name) for name in options.snapshot], policy)
    if options.guest and not options.host:
        raise CouldNot("--guest needs --host: the capabilities of the host to plan for")
    host, guests = snapshots.gather(options.host, options.guest)
    made = plan(host, guests, policy, {})
    if options.json:
        print_json(content(made))
    else:
        _print(made)
    return FINE if made.complete else TO_REPORT


def _fleet(files: list[Path], policy: Policy) -> int:
    """One JSON line a host; a file that cannot be read is said in its line, and the rest go on."""
    code = FINE
    for file in files:
        try:
            host, guests = snapshots.load(file)
        except CouldNot as error:
            print(json.dumps({"host": str(file), "error": str(error)}))
            code = COULD_NOT
            continue
        made = plan(host, guests, policy, {})
        print(json.dumps({"host": str(file), **content(made)}))
        code = max(code, FINE if made.complete else TO_REPORT)
    return code


def read_policy(file: str | None, settings: list[str]) -> Policy:
    """The policy of a variables file and of OPTION=VALUE on top. Raises CouldNot."""
    values = _variables(Path(file)) if file else {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise CouldNot(f"--set {setting}: write it as OPTION=VALUE")
        values[name.strip()] = value
    try:
        return parse(values)
    except BadOptions as error:
        raise CouldNot(str(error)) from error


def _variables(file: Path) -> dict[str, str]:
    values = {}
    for line in snapshots.text_of(file).splitlines():
        found = re.fullmatch(r"\s*([a-z_]+)\s*=\s*(.*?)(\s+#.*)?\s*", line)
        if found and found[1].startswith(PREFIX) and found[1][len(PREFIX) :] in OPTIONS:
            values[found[1][len(PREFIX) :]] = found[2]
    return values


def content(made: Plan) -> dict[str, Any]:
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


def _print(made: Plan) -> None:
    rows = sorted(_rows(made), key=lambda row: (row[0] is None, row[0] or 0, row[1]))
    table.show(COLUMNS, rows)
    for one in made.placements:
        print(f"{printable(one.guest)}: {printable(one.why)}")
    for warning in made.warnings:
        print(f"warning: {printable(warning)}")
    typed = [line for one in made.placements for line in commands(one)]
    if typed:
        print("\nBy hand:")
        print("\n".join(typed))


def _rows(made: Plan) -> Iterator[tuple[int | None, str, str, str]]:
    for one in made.placements:
        vcpus = ", ".join(f"{vcpu}: {cpus}" for vcpu, cpus in one.vcpus.items())
        if len(set(one.vcpus.values())) == 1 and len(one.vcpus) > 1:
            first, last = min(one.vcpus), max(one.vcpus)
            vcpus = f"{first}-{last}: {one.vcpus[first]}"
        for node in one.nodes or (None,):
            yield node, printable(one.guest), one.kind.value, vcpus


def commands(one: Placement) -> Iterator[str]:
    """What an administrator would type to have a placement; pages that move have no command."""
    if one.kind not in {Kind.DEDICATED, Kind.SHARED}:
        return
    name = shlex.quote(one.uuid or one.guest)
    for vcpu, cpus in one.vcpus.items():
        yield f"virsh vcpupin {name} {vcpu} {cpus} --live"
    if one.emulator:
        yield f"virsh emulatorpin {name} {one.emulator} --live"
    for number, cpus in one.iothreads.items():
        if cpus:
            yield f"virsh iothreadpin {name} {number} {cpus} --live"
    memory = one.memory
    if memory and memory.mode != "move":
        yield f"virsh numatune {name} --mode {memory.mode} --nodeset {memory.nodeset} --live"
