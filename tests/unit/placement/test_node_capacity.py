# SPDX-License-Identifier: GPL-2.0-or-later
"""What is free on a node: CPUs that can be dedicated, CPUs to float on, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.machines import FAR, GIB, NEAR, guest, machine
from tuned_virt.model.guest import Cell, HugePages
from tuned_virt.model.topology import Host, NumaNode
from tuned_virt.placement.demand import GuestPart, demand
from tuned_virt.placement.host_capacity import UNCAPPED, HostCapacity
from tuned_virt.placement.model import PlacementKind
from tuned_virt.placement.node_capacity import (
    MemoryShare,
    NodeCapacity,
    NodeMemory,
    _isolable,
    _requirable,
    count,
)
from tuned_virt.placement.policy import PlacementPolicy, Smt
from tuned_virt.placement.strategy import Crowding, Dedicated, Floating, Strategy

HOST = machine(1)
"""CPUs 0-7 in two LLCs of two cores with two threads."""

QUIET = replace(HOST, isolated=frozenset({4, 5, 6, 7}))


def room(host: Host = HOST, keeps: int = 0, avoided: int = 0, taken: int = 0) -> NodeCapacity:
    return NodeCapacity(host.grid.nodes[0], keeps, avoided, taken)


def test_cpus_in_a_mask() -> None:
    assert [count(mask) for mask in (0, 1, 0b1010, 1 << 200)] == [0, 1, 2, 1]


# --- CPUs -----------------------------------------------------------------------------------------


def test_what_is_free_and_what_is_shared() -> None:
    of = room(keeps=0b11, avoided=0b100, taken=0b1000)
    assert (of.free, of.shared) == (0b11110000, 0b11110111)
    assert (of.free_count, of.shared_count, of.free_in) == (4, 7, [0, 4])


def test_isolated_cpus_are_free_and_not_shared() -> None:
    of = room(QUIET, keeps=0b10001, taken=0b100010)
    assert (of.free, of.shared) == (0b11000000, 0b1101)
    assert not of.costs_shared
    assert room().costs_shared


def test_what_is_taken_can_be_given_back() -> None:
    of = room(keeps=0b11)
    of.take(0b110011)
    assert (of.free, of.shared) == (0b11001100, 0b11001100)
    assert (of.free_count, of.shared_count, of.free_in) == (4, 4, [2, 2])
    of.give_back(0b010001)
    assert (of.free, of.shared) == (0b11011100, 0b11011101)
    assert (of.free_count, of.shared_count, of.free_in) == (5, 6, [2, 3])


def test_a_copy_is_another() -> None:
    of = room()
    of.load = 2.5
    other = of.copy()
    other.take(0b1111)
    other.free_in[1] = 0
    other.load = 1
    assert (of.free, of.free_in, of.load) == (0xFF, [4, 4], 2.5)
    assert (other.free, other.free_count, other.grid) == (0xF0, 4, of.grid)


@pytest.mark.parametrize(
    ("load", "prefer", "require", "isolate"),
    [(0, 8, 8, 4), (1, 7, 6, 3), (2, 6, 6, 3), (2.5, 5, 4, 2), (7, 1, 0, 0), (8, 0, 0, 0)],
)
def test_cpus_to_dedicate_are_those_that_nobody_needs(
    load: float, prefer: int, require: int, isolate: int
) -> None:
    of = room()
    of.load = load
    found = [of.dedicable(smt) for smt in (Smt.PREFER, Smt.REQUIRE, Smt.ISOLATE)]
    assert found == [prefer, require, isolate]


def test_nobody_needs_isolated_cpus() -> None:
    of = room(QUIET)
    of.load = 4
    found = [of.dedicable(smt) for smt in (Smt.PREFER, Smt.REQUIRE, Smt.ISOLATE)]
    assert found == [4, 4, 2]


def test_kept_and_avoided_cpus_are_not_dedicated_and_break_their_cores() -> None:
    of = room(keeps=0b1, avoided=0b100)
    found = [of.dedicable(smt) for smt in (Smt.PREFER, Smt.REQUIRE, Smt.ISOLATE)]
    assert found == [6, 4, 2]
    assert of.whole_cores(Smt.ISOLATE) == [0b110000, 0b11000000]


def test_cores_of_one_thread_are_whole_but_not_to_require() -> None:
    of = room(machine(1, cores=4, threads=1))
    assert of.whole_cores(Smt.REQUIRE) == []
    assert of.whole_cores(Smt.ISOLATE) == [1, 2, 4, 8]
    assert of.dedicable(Smt.REQUIRE) == 0


def test_floating_guests_share_what_is_left() -> None:
    of = room(taken=0b1)
    of.load = 2.5
    assert of.floatable(1) == pytest.approx(4.5)
    assert of.floatable(2) == pytest.approx(9)
    of.load = 0.1 * 3
    assert int(of.floatable(10)) == 67


def holds(sizes: Sequence[int], vcpus: int, slack: float, isolated: bool) -> bool:
    """Whether so many vCPUs can sit on any choice of fewest whole cores that an LLC may force."""
    for number in range(1, len(sizes) + 1):
        for chosen in combinations(sizes, number):
            used = number if isolated else sum(chosen)
            least = used - (0 if isolated else max(chosen) - 1)
            if least <= vcpus <= used and sum(chosen) > slack:
                return False
    return vcpus <= (len(sizes) if isolated else sum(sizes))


CORES = st.lists(st.integers(1, 4), max_size=5).map(lambda some: sorted(some, reverse=True))


@given(CORES, st.integers(0, 12))
def test_what_is_promised_on_whole_cores_is_there_whichever_they_are(
    sizes: list[int], slack: int
) -> None:
    for isolated, promised in ((True, _isolable(sizes, slack)), (False, _requirable(sizes, slack))):
        assert all(holds(sizes, vcpus, slack, isolated) for vcpus in range(1, promised + 1))
        assert promised >= 0


@pytest.mark.parametrize(
    ("sizes", "slack", "expected"),
    [
        ([], 9, 0),
        ([2, 2, 2], math.inf, 6),
        ([2, 1], math.inf, 3),
        ([2, 2, 2], 6, 6),
        ([2, 2, 2], 9, 6),
        ([2, 2, 2], 5, 4),
        ([2, 2, 2], 1.9, 0),
        ([4, 4, 2], 10, 7),
        ([4, 4, 2], 13, 10),
        ([4, 4, 2], 12.9, 9),
        ([4, 4, 2], 20, 10),
        ([4, 4, 2], 4, 1),
        ([4, 4, 2], 3, 0),
        ([4, 4, 2], 0, 0),
    ],
)
def test_vcpus_on_cores_that_are_not_all_equal(
    sizes: list[int], slack: float, expected: int
) -> None:
    assert _requirable(sizes, slack) == expected


@pytest.mark.parametrize(
    ("sizes", "slack", "expected"),
    [([], 9, 0), ([2, 2], 4, 2), ([2, 2], 3, 1), ([4, 1], 4, 1), ([4, 1], 3, 0), ([4, 1], 5, 2)],
)
def test_cores_of_their_own(sizes: list[int], slack: float, expected: int) -> None:
    assert _isolable(sizes, slack) == expected


# --- memory ---------------------------------------------------------------------------------------


def nodes(*made: NumaNode) -> Host:
    return Host(made, {})


def node(number: int, gib: int, **more: object) -> NumaNode:
    kinds: dict[str, object] = {"pages": {}, **more}
    return NumaNode(number, frozenset(), gib * GIB, {}, **kinds)  # type: ignore[arg-type]


def test_memory_is_what_is_free_else_all_but_the_pools() -> None:
    pools = {4: 100, 64: 100, 2048: 512, 1 << 20: 2}
    banks = NodeMemory(nodes(node(0, 8, pages=pools), node(1, 8, available=GIB, pages=pools)))
    assert banks.memory == {0: 5 * GIB, 1: GIB}
    assert banks.huge == {(n, size): pools[size] for n in (0, 1) for size in (2048, 1 << 20)}


def test_pools_that_are_told_as_free_count_as_that() -> None:
    banks = NodeMemory(nodes(node(0, 8, pages={2048: 512}, free_pages={2048: 12})))
    assert banks.huge == {(0, 2048): 12}
    assert banks.memory == {0: 8 * GIB - 12 * 2048}
    assert NodeMemory(nodes(node(0, 1, pages={1 << 20: 2}))).memory == {0: 0}


def test_a_host_that_says_nothing_has_room_for_all() -> None:
    assert NodeMemory(nodes(node(0, 0), node(1, 0))).memory == {0: math.inf, 1: math.inf}
    assert NodeMemory(nodes(node(0, 0), node(1, 1))).memory == {0: 0, 1: GIB}


@pytest.mark.parametrize(
    ("memory", "huge", "bank", "fits"),
    [
        (100, {}, 0, True),
        (101, {}, 0, False),
        (1, {}, 9, False),
        (0, {}, 9, True),
        (0, {2048: 5}, 0, True),
        (0, {2048: 6}, 0, False),
        (100, {2048: 5}, 0, True),
        (101, {2048: 5}, 0, False),
        (0, {2048: 5, 1 << 20: 1}, 0, False),
        (0, {2048: 1}, 9, False),
        (100 + 1e-12, {2048: 5 + 1e-12}, 0, True),
    ],
)
def test_what_fits(memory: float, huge: dict[int, int], bank: int, fits: bool) -> None:
    banks = NodeMemory(nodes(node(0, 8)))
    banks.memory[0] = 100
    banks.huge[0, 2048] = 5
    assert banks.fits(memory, huge, bank) is fits


def test_what_is_charged_can_be_given_back() -> None:
    banks = NodeMemory(nodes(node(0, 1, pages={2048: 100})))
    before = banks.copy()
    shares = [MemoryShare(0, 1000, {2048: 30, 4096: 2}), MemoryShare(0, 24, {})]
    banks.charge(shares)
    assert banks.memory == {0: before.memory[0] - 1024}
    assert banks.huge == {(0, 2048): 70, (0, 4096): -2}
    banks.charge(shares, -1)
    assert banks.memory == before.memory
    assert banks.huge == {**before.huge, (0, 4096): 0}


# --- the board ------------------------------------------------------------------------------------


def board(host: Host) -> HostCapacity:
    return HostCapacity(
        host, [NodeCapacity(one, 0, 0, 0) for one in host.grid.nodes], NodeMemory(host)
    )


def test_a_copied_board_is_another() -> None:
    of = board(machine())
    of.unplaceable.add((PlacementKind.SHARED, "a shape"))
    of.uncapped = True
    other = of.copy()
    assert (other.uncapped, other.unplaceable) == (True, of.unplaceable)
    other.unplaceable.clear()
    other.nodes[0].take(1)
    other.memory.charge([MemoryShare(1, 5, {})])
    assert of.unplaceable
    assert of.nodes[0].free == 0xFF
    assert of.memory.memory == {0: 8 * GIB, 1: 8 * GIB}


def test_capacity() -> None:
    of = board(machine(1))
    of.nodes[0].load = 1

    def free(way: type[Strategy], vcpus: int = 1, **policy: Any) -> int:
        return way(of, demand(guest("a", vcpus), PlacementPolicy(**policy), 2048)).free_vcpus(0)

    assert free(Floating, overcommit=1.5) == 8, "no guest is overcommitted against itself"
    assert free(Floating, 9, overcommit=1.5) == 9, "but one that is wider than the host"
    assert free(Crowding, overcommit=1.5) == 10
    assert free(Dedicated, smt=Smt.ISOLATE) == 3
    of.uncapped = True
    assert free(Floating) == UNCAPPED
    assert free(Dedicated) == 7


def part(
    *vcpus: int, memory: int = 0, cell: int = -1, allowed: frozenset[int] | None = None
) -> GuestPart:
    return GuestPart(-1, vcpus, memory, {}, allowed)


def test_nodes_that_the_owner_leaves_are_those_of_its_memory() -> None:
    base = machine(2)
    bare = replace(base.nodes[0], memory=0)
    of = board(replace(base, nodes=(bare, base.nodes[1])))
    assert of.allowed(part(0)) == [0, 1]
    assert of.allowed(part(0, allowed=frozenset({1}))) == [0, 1], "both have node 1's memory"
    assert of.allowed(part(0, allowed=frozenset({0}))) == []
    assert of.fits_memory(part(0, memory=8 * GIB), 0)
    assert not of.fits_memory(part(0, memory=8 * GIB + 1), 0)


def test_memory_follows_the_vcpus() -> None:
    of = board(machine(4))
    plain = demand(guest("a", 4, 8), PlacementPolicy(), 2048)
    assert of.shares(plain, {2: (0, 1, 2, 3)}) == [MemoryShare(2, 8 * GIB, {})]
    assert of.shares(plain, {1: (0, 1, 2), 3: (3,)}) == [
        MemoryShare(1, 6 * GIB, {}),
        MemoryShare(3, 2 * GIB, {}),
    ]
    assert of.shares(plain, {0: (0,)}, (0, 1)) == [
        MemoryShare(0, 4 * GIB, {}),
        MemoryShare(1, 4 * GIB, {}),
    ]
    huge = demand(guest("a", 4, 8, huge_pages=(HugePages(1 << 20),)), PlacementPolicy(), 2048)
    assert of.shares(huge, {1: (0, 1), 3: (2, 3)}) == [
        MemoryShare(1, 0, {1 << 20: 4}),
        MemoryShare(3, 0, {1 << 20: 4}),
    ]
    own = (Cell(0, frozenset({0, 1}), 6 * GIB), Cell(1, frozenset({2, 3}), 2 * GIB))
    cells = demand(guest("a", 4, 8, cells=own), PlacementPolicy(), 2048)
    assert of.shares(cells, {1: (0, 1), 3: (2, 3)}) == [
        MemoryShare(1, 6 * GIB, {}),
        MemoryShare(3, 2 * GIB, {}),
    ]
    assert of.shares(cells, {2: (0, 1, 2), 3: (3,)}) == [
        MemoryShare(2, 6 * GIB, {}),
        MemoryShare(2, GIB, {}),
        MemoryShare(3, GIB, {}),
    ]
    offline = demand(guest("a", 2, 8, cells=own), PlacementPolicy(), 2048)
    assert of.shares(offline, {2: (0,), 3: (1,)}) == [
        MemoryShare(2, 3 * GIB, {}),
        MemoryShare(3, 3 * GIB, {}),
        MemoryShare(2, 2 * GIB, {}),
    ], "a cell without vCPUs goes with the first"


def test_memory_by_the_size_of_nodes() -> None:

    base = machine(2)
    larger = replace(base.nodes[1], memory=24 * GIB)
    of = board(replace(base, nodes=(base.nodes[0], larger)))
    plain = demand(guest("a", 1, 16), PlacementPolicy(), 2048)
    assert of.shares(plain, {0: (0,)}, (0, 1)) == [
        MemoryShare(0, 4 * GIB, {}),
        MemoryShare(1, 12 * GIB, {}),
    ]


def test_memory_in_equal_parts_where_no_size_is_known() -> None:
    of = board(machine(4, gib=0))
    plain = demand(guest("a", 1, 6), PlacementPolicy(), 2048)
    assert [share.memory for share in of.shares(plain, {0: (0,)}, (0, 1, 2))] == [2 * GIB] * 3


def test_devices_and_memory_pull() -> None:

    devices = {"near": 1, "far": 3, "own": 0, "nowhere": -1, "gone": 9}
    of = board(replace(machine(4), devices=devices))

    def distance(*names: str) -> int:
        return of.device_distance(guest("a", 1, devices=names), 0)

    assert distance() == distance("own") == distance("nowhere", "gone", "unknown") == 0
    assert distance("near") == NEAR - 10
    assert distance("near", "far", "unknown") == NEAR - 10 + FAR - 10
    assert of.to_move(guest("a", 1), 0) == 0
    there = guest("a", 1, resident={0: 5, 1: 7, 3: 100})
    assert [of.to_move(there, place) for place in range(4)] == [107, 105, 112, 12]


def test_cores_of_two_sizes_cost_as_the_largest_do() -> None:
    """Two cores with two threads, four with one; four of the eight CPUs are needed by others."""
    alone = {cpu: replace(HOST.cpus[cpu], siblings=frozenset({cpu})) for cpu in range(4, 8)}
    of = room(replace(HOST, cpus={**HOST.cpus, **alone}))
    of.load = 4.0
    assert of.dedicable(Smt.ISOLATE) == 2
    of.load = 3.0
    assert of.dedicable(Smt.ISOLATE) == 3
