# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts and guests of which every number is known, and plans for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.placement import Placement, for_guests, parse, plan

GIB = 1 << 20
NEAR, FAR = 12, 20


def machine(nodes: int = 2, cores: int = 4, threads: int = 2, llcs: int = 2, gib: int = 8) -> Host:
    """Equal nodes; siblings have consecutive numbers; nodes 0 and 1, 2 and 3, … are near."""
    cpus, caches, found = {}, [], []
    each = cores * threads
    for node in range(nodes):
        own = range(node * each, (node + 1) * each)
        for cpu in own:
            first = cpu - cpu % threads
            siblings = frozenset(range(first, first + threads))
            cpus[cpu] = CpuDetail(cpu, node, node, 0, cpu // threads, siblings)
        for start in range(own.start, own.stop, each // llcs):
            caches.append(Cache(frozenset(range(start, start + each // llcs)), 32 << 10))
        distances = {
            other: 10 if other == node else NEAR if other // 2 == node // 2 else FAR
            for other in range(nodes)
        }
        found.append(NumaNode(node, frozenset(own), gib * GIB, distances, {}))
    return Host(tuple(found), cpus, tuple(caches))


def guest(name: str, vcpus: int, gib: float = 1, **more: Any) -> Guest:
    kib = int(gib * GIB)
    online = tuple(range(vcpus))
    return Guest(name, f"uuid-{name}", vcpus=vcpus, online=online, memory=kib, **more)


def planned(
    host: Host, *guests: Guest, current: Iterable[Placement] = (), **options: Any
) -> dict[str, Placement]:
    """Where a CPU takes one floating vCPU, unless asked otherwise: numbers that can be counted."""
    free = for_guests(host, guests)
    made = plan(
        free, guests, parse({"overcommit": "1", **options}), {one.uuid: one for one in current}
    )
    return {one.guest: one for one in made.placements}


def cpus_of(one: Placement) -> list[str]:
    return [one.vcpus[vcpu] for vcpu in sorted(one.vcpus)]
