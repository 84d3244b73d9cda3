# SPDX-License-Identifier: GPL-2.0-or-later
"""Placements that people reported as wrong, on their hosts: where an expert puts the guest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from tests.unit.machines import GIB, cpus_of, guest, planned
from tuned_virt.model.guest import Cell, CpuTopology
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind

AUTO: dict[str, Any] = {"overcommit": "auto"}
OWN: dict[str, Any] = {"policy": "dedicated", **AUTO}


def amd(
    cores: int,
    llc: int,
    *,
    mib: Sequence[int] = (32,),
    slow: Collection[int] = (),
    gib: Mapping[int, int] = {0: 64},
    isolated: Collection[int] = (),
) -> Host:
    """Cores with two threads, the second ones numbered after all first ones, as on AMD's desktops;
    llc: cores of a cache; mib: sizes of the caches in turn; gib: memory of the nodes."""
    each = cores // len(gib)
    cpus = {}
    for cpu in range(2 * cores):
        core = cpu % cores
        siblings = frozenset({core, core + cores})
        node = core // each
        cpus[cpu] = CpuDetail(cpu, node, 0, node, core, siblings, 512 if core in slow else 1024)
    caches = tuple(
        Cache(frozenset(cpu for cpu in cpus if cpu % cores // llc == at), mib[at % len(mib)] << 10)
        for at in range(cores // llc)
    )
    nodes = tuple(
        NumaNode(
            node,
            frozenset(cpu for cpu, one in cpus.items() if one.node == node),
            memory * GIB,
            {other: 10 if other == node else 16 for other in gib},
            {},
        )
        for node, memory in gib.items()
    )
    return Host(nodes, cpus, caches, isolated=frozenset(isolated))


def pairs(vcpus: int) -> CpuTopology:
    return CpuTopology(cores=vcpus // 2, threads=2)


def numbers(made: Placement) -> list[int]:
    return [int(text) for text in cpus_of(made)]


# --- a 2990WX: nodes 1 and 3 have no memory -------------------------------------------------------

WX = amd(32, 4, mib=[8], gib={0: 78, 1: 0, 2: 78, 3: 0})
"""https://github.com/harvester/harvester/issues/8182."""


def test_guests_are_on_nodes_with_memory_before_those_without() -> None:
    guests = [guest(name, 8, 8) for name in "abcd"]
    for count, nodes in ((2, [0, 2]), (4, [0, 1, 2, 3])):
        made = planned(WX, *guests[:count], **AUTO)
        assert sorted(node for one in made.values() for node in one.nodes) == nodes
    two = planned(WX, *guests[:2], **AUTO)
    assert two["b"].why == (
        "node 2 rather than node 1: nearer to memory, which not every node has (distance +0,"
        " compared with +6)"
    )


@pytest.mark.parametrize("cells", [(), (8, 8)])
def test_a_guest_that_needs_two_nodes_has_those_with_memory(cells: Sequence[int]) -> None:
    own = tuple(
        Cell(number, frozenset(range(8 * number, 8 * number + 8)), 4 * GIB)
        for number in range(len(cells))
    )
    made = planned(WX, guest("a", 16, 8, topology=pairs(16), cells=own), **OWN)["a"]
    assert (made.kind, made.nodes) == (PlacementKind.DEDICATED, (0, 2))
    assert made.memory is not None
    assert (made.memory.mode, made.memory.nodeset) == ("move", "0,2")


def test_what_finds_no_cpus_there_has_the_nearest_memory() -> None:
    made = planned(WX, *(guest(name, 14, 8) for name in "abc"), **OWN)
    assert (made["c"].nodes, made["c"].memory) == ((1,), MemoryPlacement("move", "0"))


# --- threads, caches, kinds of cores --------------------------------------------------------------


def test_threads_of_a_guest_core_are_threads_of_a_core() -> None:
    """https://github.com/kubevirt/kubevirt/issues/4687: 3 and 4, 11 and 12 were chosen."""
    made = planned(amd(8, 8), guest("vmi", 4, topology=pairs(4)), **OWN)["vmi"]
    assert numbers(made) == [1, 9, 2, 10]


@pytest.mark.parametrize(
    ("vcpus", "caches"), [(8, {1}), (16, {1, 2}), (24, {1, 2, 3})], ids=["4", "8", "12 cores"]
)
def test_a_guest_has_whole_caches(vcpus: int, caches: set[int]) -> None:
    """A 3950X, https://github.com/bryansteiner/gpu-passthrough-tutorial/issues/19: four cores a
    cache, of which the first has the housekeeping core."""
    made = planned(amd(16, 4, mib=[16]), guest("win10", vcpus, topology=pairs(vcpus)), **OWN)
    chosen = numbers(made["win10"])
    assert {cpu % 16 // 4 for cpu in chosen} == caches
    assert all(second == first + 16 for first, second in zip(chosen[::2], chosen[1::2]))


def test_two_guests_share_no_cache_where_there_are_enough() -> None:
    """An EPYC 7343, https://github.com/ayufan/pve-helpers/issues/9."""
    guests = [guest("win", 16, topology=pairs(16)), guest("linux", 8, topology=pairs(8))]
    made = planned(amd(16, 4), *guests, **OWN)
    caches = [{cpu % 16 // 4 for cpu in numbers(made[name])} for name in ("win", "linux")]
    assert caches == [{1, 2}, {3}]


def test_important_guests_share_no_core_and_the_others_are_not_pinned_to_one() -> None:
    """https://github.com/canonical/lxd/issues/14133: CPUs 0-7 and 16-23 are fast, and guests under
    load got two threads of a core while others were idle."""
    host = amd(16, 8, slow=range(8, 16))
    important = [guest(f"redis{n}", 4, wishes={"policy": "dedicated"}) for n in (1, 2)]
    others = [guest(f"app{n}", vcpus) for n, vcpus in enumerate((6, 8, 4, 2, 6, 8, 2, 6, 8, 2))]
    made = planned(host, *important, *others, **AUTO)
    own = [{cpu % 16 for cpu in numbers(made[one.name])} for one in important]
    assert not own[0] & own[1]
    assert own[0] | own[1] <= set(range(8)), "the fast ones"
    assert {text for one in others for text in made[one.name].vcpus.values()} == {"4-15,20-31"}


@pytest.mark.parametrize(("prefer", "first"), [("cache", 0), ("clock", 8)])
def test_a_game_has_the_cache_or_the_clock_that_is_asked_for(prefer: str, first: int) -> None:
    """A 9950X3D, https://rmnr.net/blog/9950x3d-vcache-pinning-cachyos/: 0-7 and 16-23 have the
    cache; housekeeping is on the other die then."""
    host = amd(16, 8, mib=[96, 32])
    made = planned(host, guest("win11", 16, topology=pairs(16)), prefer=prefer, **OWN)["win11"]
    assert sorted({cpu % 16 for cpu in numbers(made)}) == list(range(first, first + 8))


def test_isolated_cpus_have_one_vcpu_each_and_nothing_else() -> None:
    """A 3960X, https://github.com/ayufan/pve-helpers/issues/4: isolcpus=3-18, of which the first
    had all 16 vCPUs, as the kernel does not balance there."""
    host = amd(24, 3, mib=[16], isolated=range(3, 19))
    made = planned(host, guest("win10", 16, 32, iothreads={1: ()}), guest("nas", 4, 4), **OWN)
    assert sorted(numbers(made["win10"])) == list(range(3, 19))
    rest = "0-2,19-47"
    assert (made["win10"].emulator, made["win10"].iothreads) == (rest, {1: rest})
    assert (made["nas"].kind, set(made["nas"].vcpus.values())) == (PlacementKind.SHARED, {rest})
