# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's topology to JSON, as snapshots have it, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from tuned_virt.kernel import cpuset
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.model.topology.host import MOST_CPUS

T = TypeVar("T")


def content(host: Host) -> dict[str, Any]:
    """A host as JSON has it."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(host), default=sorted))
    return plain


def numbered(content: Mapping[str, T]) -> dict[int, T]:
    """What JSON has by numbers, which are text there."""
    return {int(key): value for key, value in content.items()}


def host(content: Mapping[str, Any]) -> Host:
    """What `content` wrote. Raises ValueError where CPUs, nodes and siblings do not agree."""
    found = Host(
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
    _check(found)
    return found


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
        distances=numbered(content["distances"]),
        pages=numbered(content["pages"]),
        available=content["available"],
        free_pages=None if free is None else numbered(free),
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
