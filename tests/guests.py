# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of all kinds for a host, made up by hypothesis, and the policies that place them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from hypothesis import strategies as st

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Cell, CpuTopology, Guest, HugePages, UserPins
from tuned_virt.model.topology import Host
from tuned_virt.placement import PlacementPolicy, parse

Draw = Callable[[st.SearchStrategy[Any]], Any]

WISHES: Sequence[dict[str, str]] = (
    {"policy": "none"},
    {"policy": "dedicated", "smt": "isolate"},
    {"policy": "dedicated", "smt": "require", "iothreads": "emulator"},
    {"policy": "node", "memory": "strict", "emulator": "shared-with-vcpu0"},
)
MANAGERS = ("OpenStack Nova", "oVirt", "KubeVirt")


def rarely(strategy: st.SearchStrategy[Any], otherwise: Any) -> st.SearchStrategy[Any]:
    """In one case of six."""
    return st.integers(0, 5).flatmap(lambda n: strategy if n == 5 else st.just(otherwise))


def cpus_of(host: Host) -> st.SearchStrategy[frozenset[int]]:
    """What an owner may write: one CPU, some, a range with gaps, those of a node, all, others'."""
    online = sorted(host.cpus)
    some = st.sets(st.sampled_from(online), min_size=1, max_size=4).map(frozenset)
    ends = st.tuples(st.sampled_from(online), st.sampled_from(online))
    ranges = ends.map(lambda pair: frozenset(range(min(pair), max(pair) + 1)))
    nodes = st.sampled_from([node.cpus for node in host.nodes if node.cpus])
    return st.one_of(some, ranges, nodes, st.just(frozenset(online)), st.just(frozenset({9999})))


@st.composite
def owners(draw: Draw, host: Host, vcpus: int, iothreads: Sequence[int]) -> UserPins:
    """What an owner wrote about places."""
    nodes = st.sets(st.sampled_from([node.id for node in host.nodes]), min_size=1).map(frozenset)
    mode = draw(st.sampled_from(["", "", "strict", "preferred", "interleave", "restrictive"]))
    few = st.dictionaries(st.integers(0, vcpus - 1), cpus_of(host), max_size=4)
    every = cpus_of(host).map(lambda cpus: dict.fromkeys(range(vcpus), cpus))
    return UserPins(
        vcpus=draw(st.one_of(few, every)),
        emulator=draw(st.one_of(st.none(), cpus_of(host))),
        iothreads={n: draw(cpus_of(host)) for n in iothreads if draw(st.booleans())},
        automatic=draw(st.sampled_from([False, False, True])),
        realtime=draw(st.sampled_from([False, False, True])),
        memory=mode,
        nodes=draw(nodes) if mode else frozenset(),
    )


def cells_of(draw: Draw, vcpus: int, memory: int) -> tuple[Cell, ...]:
    """Usually none; else of one size, and the last with what is left."""
    count = draw(rarely(st.sampled_from([2, 3, 4]), 0))
    if not count or vcpus < count:
        return ()
    each, share = vcpus // count, memory // count
    starts = [each * number for number in range(count)] + [vcpus]
    return tuple(
        Cell(number, frozenset(range(starts[number], starts[number + 1])), share)
        for number in range(count)
    )


@st.composite
def guests(draw: Draw, host: Host, number: int, *, plain: bool = False) -> Guest:
    """Any guest, from one vCPU to more than a node has; a plain one only has a size."""
    largest = max(len(node.cpus & host.cpus.keys()) for node in host.nodes)
    sizes = [1, 1, 2, 2, 3, 4, 6, 8, largest, largest + 1, max(1, largest // 2), largest * 3 // 2]
    vcpus = draw(st.sampled_from(sizes))
    total = sum(node.memory for node in host.nodes) or len(host.cpus) << 20
    share = draw(st.sampled_from([1, 5, 9, 13])) * vcpus / len(host.cpus)
    memory = max(1024, int(total * share / 10))
    name, uuid = f"guest{number:03}", f"00000000-0000-4000-8000-{number:012}"
    if plain:
        return Guest(name, uuid, vcpus=vcpus, online=tuple(range(vcpus)), memory=memory)
    threads = 2 if vcpus % 2 == 0 and draw(st.booleans()) else 1
    cells = cells_of(draw, vcpus, memory)
    memory = sum(cell.memory for cell in cells) or memory
    disks = tuple(sorted(draw(st.sets(st.sampled_from(["sda", *host.disks])))))
    iothreads = draw(st.sampled_from([{}, {}, {1: disks}, {1: (), 2: disks}, {4: disks}]))
    devices: list[tuple[str, ...]] = [(), *((address,) for address in host.devices)]
    banks = [node.id for node in host.nodes if node.memory]
    return Guest(
        name,
        uuid,
        vcpus=vcpus,
        online=tuple(range(draw(rarely(st.integers(1, vcpus), vcpus)))),
        topology=draw(
            st.sampled_from([None, CpuTopology(cores=vcpus // threads, threads=threads)])
        ),
        cells=cells,
        memory=memory,
        max_memory=memory * draw(st.sampled_from([1, 2])),
        huge_pages=draw(rarely(st.sampled_from([(HugePages(None),), (HugePages(2048),)]), ())),
        devices=draw(rarely(st.sampled_from(devices), ())),
        iothreads=iothreads,
        owned=draw(rarely(owners(host, vcpus, list(iothreads)), UserPins())),
        manager=draw(rarely(st.sampled_from(["", "", *MANAGERS]), "")),
        wishes=draw(rarely(st.sampled_from(WISHES), {})),
        locked=draw(rarely(st.just(True), False)),
        protected=draw(rarely(st.just(True), False)),
        shares_pages=draw(rarely(st.just(False), True)),
        resident=draw(rarely(st.sampled_from([{bank: memory // 2} for bank in banks] or [{}]), {})),
    )


@st.composite
def crowds(draw: Draw, host: Host, *, plain: bool = False) -> list[Guest]:
    """From no guest to more than the host takes."""
    load = draw(st.sampled_from([0.3, 0.7, 1.0, 1.6])) * len(host.cpus)
    found: list[Guest] = []
    while sum(guest.vcpus for guest in found) < load and len(found) < 12:
        found.append(draw(guests(host, len(found), plain=plain)))
    return found


@st.composite
def policies(draw: Draw, host: Host) -> PlacementPolicy:
    """Any policy."""
    options = {
        "policy": draw(st.sampled_from(["node", "dedicated", "dedicated"])),
        "smt": draw(st.sampled_from(["prefer", "require", "isolate"])),
        "overcommit": draw(st.sampled_from(["auto", "auto", "1", "1.5", "4"])),
        "memory": draw(st.sampled_from(["move", "restrictive", "strict", "none"])),
        "emulator": draw(st.sampled_from(["node", "housekeeping", "shared-with-vcpu0"])),
        "iothreads": draw(st.sampled_from(["device", "housekeeping", "emulator"])),
    }
    most = max(1, len(host.cpus) // 8)
    named = draw(rarely(st.sets(st.sampled_from(sorted(host.cpus)), max_size=most), set()))
    if named:
        options["housekeeping"] = cpuset.text(named)
    return parse(options)
