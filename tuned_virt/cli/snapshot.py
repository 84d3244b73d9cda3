# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt snapshot: write this host and its guests into one file, to plan with elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from tuned_virt.cli import planning_input
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.cli.json_parts import JsonPart, JsonPartError
from tuned_virt.cli.planning_input import MOST_GUESTS, DescribedGuest, PlanningInput
from tuned_virt.kernel import cpuset
from tuned_virt.libvirt_api.placement_tag import Pins
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.model.topology.host import MOST_CPUS
from tuned_virt.placement import Placement
from tuned_virt.plugins.vm_pinning.record import placement_of

NAME = "snapshot"

FORMAT = 2
MOST_SNAPSHOT = 64 << 20
"""Bytes of a file that are read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    add_sources(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Options that name a host and guests in files."""
    parser.add_argument("--host", metavar="CAPABILITIES.xml", help="a host from a file, not this")
    parser.add_argument(
        "--guest",
        metavar="DOMAIN.xml",
        nargs="+",
        action="extend",
        default=[],
        help="its guests, with --host",
    )


def run(options: argparse.Namespace) -> int:
    """Gather and write."""
    gathered = planning_input.gather(options.host, options.guest)
    for note in gathered.notes:
        print(f"note: {note}", file=sys.stderr)
    text = json.dumps(_content(gathered))
    if options.output:
        try:
            Path(options.output).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CouldNot(f"{options.output}: {error.strerror}") from error
    else:
        print(text)
    return FINE


def _content(gathered: PlanningInput) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "host": _plain(gathered.host),
        "guests": [dataclasses.asdict(one) for one in gathered.described],
        "notes": list(gathered.notes),
    }


def _plain(host: Host) -> dict[str, Any]:
    content = dataclasses.asdict(host)
    plain: dict[str, Any] = json.loads(json.dumps(content, default=sorted))
    return plain


# --- reading --------------------------------------------------------------------------------------


def load(file: Path) -> PlanningInput:
    """What `snapshot` wrote. Raises CouldNot, which names what is wrong in it."""
    text = planning_input.text_of(file, MOST_SNAPSHOT)
    try:
        content = JsonPart(json.loads(text))
        if content["format"].value != FORMAT:
            found = content["format"].value
            raise CouldNot(f"{file}: format {found!r} is not {FORMAT}: write it anew")
        guests = content["guests"].each()
        if len(guests) > MOST_GUESTS:
            raise CouldNot(f"{file}: more than {MOST_GUESTS} guests")
        host = _restored(content["host"])
        described = [(f"{file}: guest {n}", _described(one)) for n, one in enumerate(guests, 1)]
        notes = tuple(one.text() for one in content["notes"].each())
    except json.JSONDecodeError as error:
        raise CouldNot(f"{file}: line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise CouldNot(f"{file}: no snapshot of tuned-virt: it is nested too deeply") from error
    except ValueError as error:
        raise CouldNot(f"{file}: no snapshot of tuned-virt: {error}") from error
    return planning_input.of(host, described, notes)


def _described(content: JsonPart) -> DescribedGuest:
    held, now = content["held"], content["now"]
    return DescribedGuest(
        content["xml"].text(),
        None if now.value is None else _pins(now),
        content["resident"].amounts(),
        None if held.value is None else _held(held),
    )


def _held(content: JsonPart) -> Placement:
    try:
        made = placement_of(content.value)
        _ = [cpuset.parse(text) for text in (*made.vcpus.values(), *made.iothreads.values())]
        _ = frozenset(made.nodes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise JsonPartError(f"{content.where} is no placement that tuned-virt keeps") from error
    return made


def _pins(content: JsonPart) -> Pins:
    emulator, memory = content["emulator"], content["memory"]
    texts = [] if memory.value is None else [one.text() for one in memory.each()]
    if len(texts) not in (0, 2):
        memory.wrong("a mode and a nodeset")
    return Pins(
        content["vcpus"].texts(),
        None if emulator.value is None else emulator.text(),
        content["iothreads"].texts(),
        (texts[0], texts[1]) if texts else None,
    )


def _restored(content: JsonPart) -> Host:
    host = Host(
        nodes=tuple(_node(one) for one in content["nodes"].each()),
        cpus={number: _cpu(one) for number, one in content["cpus"].numbered().items()},
        caches=tuple(_cache(one) for one in content["caches"].each()),
        offline=content["offline"].numbers(),
        isolated=content["isolated"].numbers(),
        nohz_full=content["nohz_full"].numbers(),
        devices=content["devices"].named(),
        disks=content["disks"].named(),
        arch=content["arch"].text(),
        huge_page=content["huge_page"].number(1),
        notes=tuple(one.text() for one in content["notes"].each()),
    )
    _check(host, content)
    return host


def _check(host: Host, content: JsonPart) -> None:
    """CPUs, their nodes and their siblings agree. Raises PartError."""
    if not host.nodes or len(host.by_id) != len(host.nodes):
        raise JsonPartError(f"{content['nodes'].where} has no node, or one twice")
    if not host.cpus or len(host.cpus) > MOST_CPUS:
        raise JsonPartError(f"{content['cpus'].where} has none, or more than {MOST_CPUS}")
    for number, cpu in host.cpus.items():
        where = f"{content['cpus'].where}.{number}"
        if cpu.id != number or number >= cpuset.MOST:
            raise JsonPartError(f"{where}.id is {cpu.id}, expected {number}, below {cpuset.MOST}")
        if cpu.node not in host.by_id or number not in host.by_id[cpu.node].cpus:
            raise JsonPartError(f"{where}.node is {cpu.node}, which has no such CPU")
        if number not in cpu.siblings:
            raise JsonPartError(f"{where}.siblings does not have the CPU itself")


def _node(part: JsonPart) -> NumaNode:
    available, free = part["available"], part["free_pages"]
    return NumaNode(
        id=part["id"].number(),
        cpus=part["cpus"].numbers(),
        memory=part["memory"].number(),
        distances=part["distances"].amounts(),
        pages=part["pages"].amounts(),
        available=None if available.value is None else available.number(),
        free_pages=None if free.value is None else free.amounts(),
    )


def _cpu(part: JsonPart) -> CpuDetail:
    names = ("id", "node", "socket", "die", "core")
    numbers = {name: part[name].number() for name in names}
    return CpuDetail(
        **numbers, siblings=part["siblings"].numbers(), capacity=part["capacity"].number(1)
    )


def _cache(part: JsonPart) -> Cache:
    return Cache(part["cpus"].numbers(), part["size"].number())
