# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt snapshot: write this host and its guests to one file, to plan on another machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tuned_virt.cli import json_output, planning_input
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.cli.planning_input import DescribedGuest, PlanningInput
from tuned_virt.kernel import cpuset
from tuned_virt.model.pins import Pins
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.model.topology.host import MOST_CPUS
from tuned_virt.placement import Placement
from tuned_virt.plugins.vm_pinning.held_placements import placement_of

FORMAT = 2
T = TypeVar("T")

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
    text = json.dumps(json_output.document("snapshot", _content(gathered)))
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
        "guests": list(map(_described_content, gathered.described)),
        "notes": list(gathered.notes),
    }


def _described_content(one: DescribedGuest) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "now": None if one.now is None else one.now.to_json()}


def _plain(host: Host) -> dict[str, Any]:
    content = dataclasses.asdict(host)
    plain: dict[str, Any] = json.loads(json.dumps(content, default=sorted))
    return plain


# --- reading --------------------------------------------------------------------------------------


def load(file: Path) -> PlanningInput:
    """What `snapshot` wrote. Raises CouldNot, which names what is wrong in it."""
    text = planning_input.text_of(file, MOST_SNAPSHOT)
    try:
        content = json.loads(text)
        if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
            found = content["format"]
            raise CouldNot(f"{file}: format {found!r} is not {FORMAT}: write it anew")
        _validate(content)
        host = _host(content["host"])
        guests = enumerate(content["guests"])
        described = [(f"{file}: guest {at + 1}", _described(one, at)) for at, one in guests]
    except json.JSONDecodeError as error:
        raise CouldNot(f"{file}: line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise CouldNot(f"{file}: not a snapshot of tuned-virt: it is nested too deeply") from error
    except ValueError as error:
        raise CouldNot(f"{file}: not a snapshot of tuned-virt: {error}") from error
    return planning_input.of(host, described, tuple(content["notes"]))


def _validate(content: Any) -> None:
    """Raises ValueError for the first part that schemas/snapshot.json does not allow."""
    import jsonschema  # takes time

    schema = json.loads(Path(json_output.SCHEMAS, "snapshot.json").read_text())
    errors = jsonschema.Draft7Validator(schema).iter_errors(content)
    for error in errors:
        raise ValueError(_wrong(error))


def _tells(error: Any) -> tuple[int, bool]:
    """How much one of several errors says: the deepest the most, and null alone the least."""
    return len(error.absolute_path), error.schema.get("type") != "null"


def _wrong(error: Any) -> str:
    """What a jsonschema.ValidationError says, in the words of the schema's descriptions."""
    while error.validator == "anyOf":
        error = max(error.context, key=_tells)
    steps = error.absolute_path
    where = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in steps).lstrip(".")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return f"{where}.{missing} is missing".lstrip(".")
    if error.validator == "pattern":
        where = f"{where}.{error.instance}"
    shown = repr(error.instance)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    valid = error.schema["title" if error.validator.endswith("Items") else "description"]
    return f"{where or 'the file'} is {shown}, expected {valid}"


def _described(content: Mapping[str, Any], at: int) -> DescribedGuest:
    held, now = content["held"], content["now"]
    return DescribedGuest(
        content["xml"],
        None if now is None else Pins.from_json(now),
        _numbered(content["resident"]),
        None if held is None else _held(held, f"guests[{at}].held"),
    )


def _held(content: dict[str, Any], where: str) -> Placement:
    try:
        made = placement_of(content)
        _ = [cpuset.parse(text) for text in (*made.vcpus.values(), *made.iothreads.values())]
        _ = frozenset(made.nodes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where} is not a placement that tuned-virt keeps") from error
    return made


def _numbered(content: Mapping[str, T]) -> dict[int, T]:
    return {int(key): value for key, value in content.items()}


def _host(content: Mapping[str, Any]) -> Host:
    """Raises ValueError where CPUs, nodes and siblings do not agree."""
    host = Host(
        nodes=tuple(map(_node, content["nodes"])),
        cpus={
            int(number): _cpu(cpu, f"host.cpus.{number}") for number, cpu in content["cpus"].items()
        },
        caches=tuple(Cache(frozenset(one["cpus"]), one["size"]) for one in content["caches"]),
        offline=frozenset(content["offline"]),
        isolated=frozenset(content["isolated"]),
        nohz_full=frozenset(content["nohz_full"]),
        devices=content["devices"],
        disks=content["disks"],
        arch=content["arch"],
        huge_page=content["huge_page"],
        notes=tuple(content["notes"]),
        cpusets={name: frozenset(cpus) for name, cpus in content.get("cpusets", {}).items()},
    )
    _check(host)
    return host


def _cpu(content: Mapping[str, Any], where: str) -> CpuDetail:
    try:
        return CpuDetail(**{**content, "siblings": frozenset(content["siblings"])})
    except TypeError as error:
        raise ValueError(f"{where} has a name that no CPU has") from error


def _node(content: Mapping[str, Any]) -> NumaNode:
    free = content["free_pages"]
    return NumaNode(
        id=content["id"],
        cpus=frozenset(content["cpus"]),
        memory=content["memory"],
        distances=_numbered(content["distances"]),
        pages=_numbered(content["pages"]),
        available=content["available"],
        free_pages=None if free is None else _numbered(free),
    )


def _check(host: Host) -> None:
    if not host.nodes or len(host.by_id) != len(host.nodes):
        raise ValueError("host.nodes has no node, or one twice")
    if not host.cpus or len(host.cpus) > MOST_CPUS:
        raise ValueError(f"host.cpus has none, or more than {MOST_CPUS}")
    for number, cpu in host.cpus.items():
        where = f"host.cpus.{number}"
        if cpu.id != number or number >= cpuset.MOST:
            raise ValueError(f"{where}.id is {cpu.id}, expected {number}, below {cpuset.MOST}")
        if cpu.node not in host.by_id or number not in host.by_id[cpu.node].cpus:
            raise ValueError(f"{where}.node is {cpu.node}, which has no such CPU")
        if number not in cpu.siblings:
            raise ValueError(f"{where}.siblings does not have the CPU itself")
