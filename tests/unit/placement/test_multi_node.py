# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that no node takes whole: fewest nodes, nearest nodes, whole cells and whole cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.machines import FAR, GIB, NEAR, cpus_of, guest, machine, planned
from tuned_virt.model.guest import Cell, CpuTopology, Guest, HugePages, UserPins
from tuned_virt.model.topology import Host
from tuned_virt.placement import PlacementKind, multi_node
from tuned_virt.placement.demand import demand
from tuned_virt.placement.host_capacity import HostCapacity, VcpusByNode
from tuned_virt.placement.node_capacity import NodeCapacity, NodeMemory
from tuned_virt.placement.policy import PlacementPolicy
from tuned_virt.placement.strategy import Dedicated, Floating

FOUR = machine(4)
"""8 CPUs and 8 GiB a node; 0 and 1, 2 and 3 are near."""


def board(host: Host = FOUR, loads: Mapping[int, float] | None = None) -> HostCapacity:
    made = HostCapacity(
        host, [NodeCapacity(one, 0, 0, 0) for one in host.grid.nodes], NodeMemory(host)
    )
    for place, load in (loads or {}).items():
        made.nodes[place].load = load
    return made


def spread(
    made: Guest, of: HostCapacity | None = None, dedicated: bool = False, **policy: Any
) -> VcpusByNode | None:
    of = of or board()
    wanted = demand(made, PlacementPolicy(**policy), of.host.huge_page)
    found = multi_node.spread(Dedicated(of, wanted) if dedicated else Floating(of, wanted))
    return found.vcpus_by_node if found else None


def number_by_node(seats: VcpusByNode | None) -> dict[int, int]:
    assert seats is not None
    return {place: len(vcpus) for place, vcpus in seats.items()}


# --- which nodes ----------------------------------------------------------------------------------


def test_the_span_of_nodes_is_all_distances_between_them() -> None:
    table = FOUR.grid.distances
    assert multi_node.span(table, (2,)) == 0
    assert multi_node.span(table, (1, 0)) == NEAR
    assert multi_node.span(table, (3, 0, 1)) == NEAR + 2 * FAR


@pytest.mark.parametrize(
    ("vcpus", "loads", "nodes"),
    [
        (9, {}, {0, 1}),
        (16, {}, {0, 1}),
        (17, {}, {0, 1, 2}),
        (12, {1: 6}, {2, 3}),
        (10, {0: 4, 1: 2}, {0, 1}),
        (11, {0: 4, 1: 2, 2: 5}, {2, 3}),
        (11, {0: 4, 1: 2, 2: 6}, {0, 3}),
        (9, {0: 8, 1: 4, 2: 4}, {2, 3}),
        (25, {}, {0, 1, 2, 3}),
        (25, {0: 6}, {0, 1, 2, 3}),
    ],
)
def test_the_fewest_nodes_and_of_those_the_nearest(
    vcpus: int, loads: dict[int, float], nodes: set[int]
) -> None:
    seats = spread(guest("a", vcpus, 1), board(loads=loads))
    assert seats is not None
    assert set(seats) == nodes
    assert sorted(v for some in seats.values() for v in some) == list(range(vcpus))


def test_no_room_is_none() -> None:
    assert spread(guest("a", 33, 1)) is None
    assert spread(guest("a", 32, 1)) is not None
    assert spread(guest("a", 32, 33)) is None
    assert spread(guest("a", 32, 1), overcommit=2.0) is not None
    assert spread(guest("a", 64, 1), overcommit=2.0) is not None


@given(
    st.lists(st.integers(0, 8), min_size=4, max_size=4),
    st.integers(1, 40),
)
def test_no_set_of_nodes_is_smaller_or_nearer(rooms: list[int], vcpus: int) -> None:
    of = board(loads={place: 8 - room for place, room in enumerate(rooms)})
    seats = spread(guest("a", vcpus, 0.01), of)
    table = FOUR.grid.distances
    possible = [
        (number, multi_node.span(table, some))
        for number in range(1, 5)
        for some in combinations(range(4), number)
        if sum(rooms[place] for place in some) >= vcpus
    ]
    if not possible:
        assert seats is None
        return
    assert seats is not None
    assert all(len(own) <= rooms[place] for place, own in seats.items())
    assert (len(seats), multi_node.span(table, seats)) == min(possible)


def test_devices_and_memory_decide_between_equally_near_nodes() -> None:
    host = replace(FOUR, devices={"d": 3})
    seats = spread(guest("a", 9, 1, devices=("d",)), board(host))
    assert seats is not None
    assert set(seats) == {2, 3}
    there = spread(guest("a", 9, 1, resident={2: 5, 0: 4}))
    assert there is not None
    assert set(there) == {2, 3}


def test_many_nodes_are_not_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    table = FOUR.grid.distances
    every = list(multi_node._sets([3, 1, 0, 2], 2, table))
    assert sorted(every) == list(combinations(range(4), 2))
    monkeypatch.setattr(multi_node, "MOST_SUBSETS", 6)
    assert list(multi_node._sets([3, 1, 0, 2], 2, table)) == list(combinations(range(4), 2))
    monkeypatch.setattr(multi_node, "MOST_SUBSETS", 5)
    some = list(multi_node._sets([3, 1, 0, 2], 2, table))
    assert some == [(1, 3), (2, 3), (0, 1), (0, 1), (2, 3)]
    monkeypatch.setattr(multi_node, "MOST_SUBSETS", 3)
    most, from_3, *_ = multi_node._sets([3, 1, 0, 2], 3, table)
    assert most == (0, 1, 3)
    assert from_3 == (1, 2, 3), "of equally near ones the roomier"


# --- how many on each -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "vcpus", "threads", "taken"),
    [
        ({0: 8, 1: 8}, 10, 1, {0: 8, 1: 2}),
        ({0: 4, 1: 8}, 10, 1, {0: 2, 1: 8}),
        ({0: 7, 1: 8}, 10, 2, {0: 2, 1: 8}),
        ({0: 7, 1: 7}, 10, 2, {0: 6, 1: 4}),
        ({0: 7, 1: 7}, 13, 2, {0: 6, 1: 7}),
        ({0: 7, 1: 7}, 14, 2, {0: 7, 1: 7}),
        ({0: 7, 1: 6}, 13, 2, {0: 7, 1: 6}),
        ({0: 1, 1: 1}, 2, 2, {0: 1, 1: 1}),
        ({0: 7, 1: 7, 2: 3}, 16, 4, {0: 7, 1: 7, 2: 2}),
        ({0: 8, 1: 8, 2: 8}, 8, 1, {0: 8}),
        ({2: 8, 1: 8}, 9, 1, {1: 8, 2: 1}),
    ],
)
def test_the_emptiest_takes_most_and_guest_cores_stay_whole(
    room: dict[int, int], vcpus: int, threads: int, taken: dict[int, int]
) -> None:
    found = multi_node._amounts(room, vcpus, threads)
    assert found == taken
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("room", "vcpus", "grains", "taken"),
    [
        ({0: 8, 1: 8}, 10, (0, 1, 1), {0: 5, 1: 5}),
        ({0: 4, 1: 8}, 10, (0, 1, 1), {0: 4, 1: 6}),
        ({0: 10, 1: 10}, 12, (0, 2, 1), {0: 6, 1: 6}),
        ({0: 7, 1: 8}, 10, (0, 2, 1), {0: 4, 1: 6}),
        ({0: 7, 1: 7}, 10, (0, 2, 1), {0: 6, 1: 4}),
        ({0: 7, 1: 7}, 13, (0, 2, 1), {0: 7, 1: 6}),
        ({0: 7, 1: 7}, 14, (0, 2, 1), {0: 7, 1: 7}),
        ({0: 7, 1: 6}, 13, (0, 2, 1), {0: 7, 1: 6}),
        ({0: 1, 1: 1}, 2, (0, 2, 1), {0: 1, 1: 1}),
        ({0: 2, 1: 2}, 3, (0, 2, 1), {0: 1, 1: 2}),
        ({0: 7, 1: 7, 2: 3}, 16, (0, 4, 1), {0: 7, 1: 6, 2: 3}),
        ({2: 8, 1: 8}, 9, (0, 1, 1), {1: 5, 2: 4}),
        ({0: 14, 1: 16}, 24, (12, 2, 1), {0: 12, 1: 12}),
        ({0: 14, 1: 16, 2: 16}, 36, (12, 2, 1), {0: 12, 1: 12, 2: 12}),
        ({0: 10, 1: 16}, 24, (12, 2, 1), {0: 10, 1: 14}),
    ],
)
def test_a_dedicated_guest_is_cut_evenly_and_its_dies_and_cores_stay_whole(
    room: dict[int, int], vcpus: int, grains: tuple[int, ...], taken: dict[int, int]
) -> None:
    assert multi_node._level_amounts(room, vcpus, grains) == taken


def test_memory_limits_the_vcpus_of_a_node() -> None:
    """10 GiB for 10 vCPUs: one GiB goes with each."""
    nodes = [replace(node, available=gib * GIB) for node, gib in zip(FOUR.nodes, (3, 7, 5, 2))]
    host = replace(FOUR, nodes=tuple(nodes))
    assert number_by_node(spread(guest("a", 10, 10), board(host))) == {0: 3, 1: 7}
    assert number_by_node(spread(guest("a", 10, 15), board(host))) == {0: 2, 1: 4, 2: 3, 3: 1}
    assert spread(guest("a", 10, 18), board(host)) is None


def test_nodes_that_share_memory_bring_a_third_node_in() -> None:
    """Nodes 0 and 1 have the CPUs, but node 0 has no memory of its own."""
    nodes = [replace(node, memory=0, available=0) for node in FOUR.nodes[:1]]
    nodes += [replace(node, available=5 * GIB) for node in FOUR.nodes[1:3]]
    of = board(replace(FOUR, nodes=tuple(nodes)), {2: 1})
    assert number_by_node(spread(guest("a", 16, 6), of)) == {0: 6, 1: 5, 2: 5}
    assert spread(guest("a", 16, 11), of) is None


def test_huge_pages_limit_the_vcpus_of_a_node() -> None:
    nodes = [replace(node, free_pages={2048: n}) for node, n in zip(FOUR.nodes, (256, 1536, 0, 0))]
    host = replace(FOUR, nodes=tuple(nodes))
    wants = guest("a", 4, 3, huge_pages=(HugePages(2048),))
    assert spread(wants, board(host)) is not None
    more = guest("a", 7, 3.5, huge_pages=(HugePages(2048),))
    assert number_by_node(spread(more, board(host))) == {0: 1, 1: 6}
    assert spread(guest("a", 4, 4, huge_pages=(HugePages(2048),)), board(host)) is None


# --- cells ----------------------------------------------------------------------------------------


def celled(*cells: tuple[int, float], **more: Any) -> Guest:
    """Cells of so many vCPUs and GiB."""
    made, first = [], 0
    for number, (vcpus, gib) in enumerate(cells):
        made.append(Cell(number, frozenset(range(first, first + vcpus)), int(gib * GIB)))
        first += vcpus
    return guest("a", first, sum(gib for _, gib in cells), cells=tuple(made), **more)


def homes(seats: VcpusByNode | None, made: Guest) -> list[set[int]]:
    """The nodes of each cell."""
    assert seats is not None
    return [
        {place for place, vcpus in seats.items() if set(vcpus) & cell.vcpus} for cell in made.cells
    ]


@pytest.mark.parametrize(
    ("cells", "loads", "expected"),
    [
        ([(6, 1), (6, 1)], {}, [{0}, {1}]),
        ([(6, 1), (2, 1), (6, 1)], {}, [{0}, {0}, {1}]),
        ([(4, 1), (4, 1), (4, 1), (4, 1)], {}, [{0}, {0}, {1}, {1}]),
        ([(6, 1), (6, 1)], {1: 3}, [{2}, {3}]),
        ([(2, 1), (8, 1)], {}, [{1}, {0}]),
        ([(4, 7), (4, 7)], {}, [{0}, {1}]),
        ([(4, 1), (4, 1)], {0: 8, 2: 8}, [{1}, {1}]),
        ([(8, 1), (8, 1), (8, 1)], {2: 1}, [{0}, {1}, {3}]),
    ],
)
def test_cells_stay_whole_on_few_near_nodes(
    cells: list[tuple[int, float]], loads: dict[int, float], expected: list[set[int]]
) -> None:
    made = celled(*cells)
    assert homes(spread(made, board(loads=loads)), made) == expected


def test_cells_go_where_their_owner_lets_them() -> None:
    """One node each, or such as they have in common."""
    made = celled((6, 1), (2, 1), owned=UserPins(memnodes={0: frozenset({3}), 1: frozenset({2})}))
    assert homes(spread(made), made) == [{3}, {2}]
    some = celled(
        (6, 1), (4, 1), owned=UserPins(memnodes={0: frozenset({1, 3}), 1: frozenset({1})})
    )
    assert homes(spread(some), some) == [{3}, {1}]


def test_cells_that_their_owner_sent_to_different_nodes_stay_there() -> None:
    made = celled((2, 1), (2, 1), owned=UserPins(memnodes={0: frozenset({3}), 1: frozenset({2})}))
    first = planned(FOUR, made)["a"]
    assert (first.kind, first.nodes) == (PlacementKind.SHARED, (2, 3))
    assert cpus_of(first) == ["24-31", "24-31", "16-23", "16-23"]
    assert first.why.startswith("nodes 2 and 3: its numatune puts its cells on different nodes")
    assert planned(FOUR, made, current=[first])["a"] is first
    nowhere = celled((2, 1), (2, 1), owned=UserPins(nodes=frozenset({9})))
    assert planned(FOUR, nowhere)["a"].why.startswith(
        "not placed: its numatune allows no node of this host"
    )


def test_a_cell_that_no_node_takes_is_cut() -> None:
    made = celled((12, 1), (4, 1))
    assert number_by_node(spread(made)) == {0: 8, 1: 8}
    placed = planned(FOUR, made)["a"]
    assert placed.memory is not None
    assert placed.memory.cells == {1: 1}, "the cell that is whole"


def test_cells_with_huge_pages_go_where_those_are() -> None:
    nodes = [replace(node, free_pages={2048: n}) for node, n in zip(FOUR.nodes, (0, 512, 0, 512))]
    made = celled((4, 1), (4, 1), huge_pages=(HugePages(2048),))
    assert homes(spread(made, board(replace(FOUR, nodes=tuple(nodes)))), made) == [{1}, {3}]


def test_cells_by_memory_that_is_there() -> None:
    made = celled((6, 1), (6, 1), resident={2: 5, 3: 5})
    assert homes(spread(made), made) == [{2}, {3}]


def test_cells_go_near_a_device_where_nodes_are_equally_near() -> None:
    made = celled((6, 1), (6, 1), devices=("d",))
    for home, nodes in ((0, [{0}, {1}]), (3, [{2}, {3}])):
        of = board(replace(FOUR, devices={"d": home}))
        assert homes(spread(made, of), made) == nodes


def test_three_cells_go_to_the_nearest_two_nodes_that_hold_them() -> None:
    """Node 0 holds two as well, but node 1 none."""
    made = celled((4, 1), (4, 1), (4, 1))
    assert homes(spread(made, board(loads={1: 8})), made) == [{2}, {2}, {3}]


def test_cells_go_to_nodes_with_a_single_cpu_as_their_owner_says() -> None:
    owned = UserPins(memnodes={0: frozenset({1}), 1: frozenset({0})})
    made = celled((1, 1), (1, 1), owned=owned)
    small = board(machine(2, cores=1, threads=1, llcs=1))
    assert homes(spread(made, small), made) == [{1}, {0}]


def test_huge_pages_of_all_cells_on_a_node_are_counted_together() -> None:
    nodes = [replace(node, free_pages={2048: n}) for node, n in zip(FOUR.nodes, (768, 512, 0, 0))]
    made = celled((4, 1), (4, 1), huge_pages=(HugePages(2048),))
    of = board(replace(FOUR, nodes=tuple(nodes)))
    assert homes(spread(made, of), made) == [{0}, {1}]


@pytest.mark.parametrize("pages", [(), (HugePages(2048),)])
@pytest.mark.parametrize(("gib", "fits"), [(3.9, True), (4.1, False)])
def test_memory_of_all_parts_on_a_node_is_counted_together(
    pages: tuple[HugePages, ...], gib: float, fits: bool
) -> None:
    """A cell that no node takes is cut: node 1 has the others and what is left of it."""
    host = machine(2, gib=16 if pages else 8)
    pools = {2048: 4096} if pages else {}
    nodes = tuple(replace(node, free_pages=pools) for node in host.nodes)
    made = celled((9, 0.1), (2, gib), (3, gib), huge_pages=pages)
    assert bool(spread(made, board(replace(host, nodes=nodes)))) is fits


def placements_of_cells(rooms: list[int], sizes: list[int]) -> list[tuple[int, int]]:
    """Nodes used and their span, of every way to put cells on nodes."""
    found: list[tuple[int, int]] = []

    def put(left: list[int], rest: list[int], used: frozenset[int]) -> None:
        if not rest:
            found.append((len(used), multi_node.span(FOUR.grid.distances, used)))
            return
        for place in range(4):
            if left[place] >= rest[0]:
                less = [room - rest[0] * (at == place) for at, room in enumerate(left)]
                put(less, rest[1:], used | {place})

    put(rooms, sizes, frozenset())
    return found


@given(
    st.lists(st.integers(0, 8), min_size=4, max_size=4),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
)
def test_no_match_of_cells_is_better(rooms: list[int], sizes: list[int]) -> None:
    of = board(loads={place: 8 - room for place, room in enumerate(rooms)})
    made = celled(*((size, 0.01) for size in sizes))
    wanted = demand(made, PlacementPolicy(), 2048)
    matched = multi_node._match_cells(Floating(of, wanted))
    possible = placements_of_cells(rooms, sizes)
    if not possible:
        assert matched is None
        return
    assert matched is not None
    seats = matched.vcpus_by_node
    assert all(len(own) <= rooms[place] for place, own in seats.items())
    assert all(len(where) == 1 for where in homes(seats, made))
    assert (len(seats), multi_node.span(FOUR.grid.distances, seats)) == min(possible)


def test_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_node, "MOST_STEPS", 4)
    made = celled((6, 1), (6, 1))
    way = Floating(board(), demand(made, PlacementPolicy(), 2048))
    assert multi_node._match_cells(way) is None
    monkeypatch.setattr(multi_node, "MOST_STEPS", 8)
    assert multi_node._match_cells(way) is not None


# --- memory that no node holds --------------------------------------------------------------------


def widened(made: Guest, of: HostCapacity | None = None, **policy: Any) -> object:
    of = of or board()
    return multi_node.widen(Floating(of, demand(made, PlacementPolicy(**policy), 2048)))


def test_memory_spans_the_nearest_nodes() -> None:
    assert widened(guest("a", 1, 9)) == ({0: (0,)}, (0, 1))
    assert widened(guest("a", 1, 16)) == ({0: (0,)}, (0, 1))
    assert widened(guest("a", 1, 17)) == ({0: (0,)}, (0, 1, 2))
    assert widened(guest("a", 1, 32)) == ({0: (0,)}, (0, 1, 2, 3))
    assert widened(guest("a", 1, 33)) is None


def test_where_the_vcpus_have_room() -> None:
    crowded = board(loads={0: 7, 1: 7, 2: 6})
    assert widened(guest("a", 2, 9), crowded) == ({2: (0, 1)}, (2, 3))
    assert widened(guest("a", 9, 9)) is None


def test_the_owners_nodes_alone() -> None:
    allowed = guest("a", 1, 9, owned=UserPins(nodes=frozenset({1, 3})))
    assert widened(allowed) == ({1: (0,)}, (1, 3))
    assert widened(guest("a", 1, 9, owned=UserPins(nodes=frozenset({1})))) is None


def test_huge_pages_are_where_they_are() -> None:
    assert widened(guest("a", 1, 9, huge_pages=(HugePages(2048),))) is None


def test_nearer_memory_before_a_lower_node() -> None:
    nodes = [replace(node, available=gib * GIB) for node, gib in zip(FOUR.nodes, (8, 1, 8, 8))]
    assert widened(guest("a", 1, 9), board(replace(FOUR, nodes=tuple(nodes)))) == (
        {2: (0,)},
        (2, 3),
    )


def test_of_as_many_nodes_the_nearest() -> None:
    """The nearest memory to node 0 is far away, as node 1 has none."""
    nodes = [replace(node, memory=gib * GIB) for node, gib in zip(FOUR.nodes, (8, 0, 8, 8))]
    assert widened(guest("a", 1, 9), board(replace(FOUR, nodes=tuple(nodes)))) == (
        {2: (0,)},
        (2, 3),
    )


def test_a_guest_over_several_nodes_as_it_is_shown() -> None:
    made = planned(FOUR, guest("a", 10, 2, topology=CpuTopology(cores=5, threads=2)))["a"]
    assert (made.kind, made.nodes) == (PlacementKind.SHARED, (0, 1))
    assert cpus_of(made) == ["0-7"] * 8 + ["8-15"] * 2
    assert made.why == (
        "nodes 0 and 1: it needs 10 free vCPUs; node 0 has the most (8); these are"
        " the fewest and nearest nodes that have it"
    )
    three = planned(FOUR, guest("a", 20, 2))["a"]
    assert three.why.startswith("nodes 0, 1 and 2: it needs 20 free vCPUs")


# --- how many vCPUs on which node -----------------------------------------------------------------


def in_dies(vcpus: int) -> Guest:
    return guest("a", vcpus, topology=CpuTopology(dies=4, cores=4))


def in_cores(vcpus: int) -> Guest:
    return guest("a", vcpus, topology=CpuTopology(cores=-(-vcpus // 2), threads=2))


@pytest.mark.parametrize(
    ("made", "of", "numbers"),
    [
        (guest("a", 18), board(), {0: 6, 1: 6, 2: 6}),
        (in_cores(6), board(machine(2, cores=4, threads=1), {0: 1, 1: 1}), {0: 3, 1: 3}),
        (in_cores(7), board(machine(2, cores=5, threads=1, llcs=1)), {0: 3, 1: 4}),
        (in_dies(13), board(machine(2)), {0: 5, 1: 8}),
    ],
)
def test_own_cpus_on_several_nodes_are_level_in_dies_cores_or_vcpus(
    made: Guest, of: HostCapacity, numbers: dict[int, int]
) -> None:
    assert number_by_node(spread(made, of, dedicated=True)) == numbers


def test_floating_vcpus_on_several_nodes() -> None:
    """Three may be cut; the odd one is on the node that comes last, so that cores stay whole."""
    few = board(loads={0: 6, 1: 6, 2: 7, 3: 7})
    assert number_by_node(spread(guest("a", 3), few, overcommit=1)) == {0: 2, 1: 1}
    odd = spread(in_cores(11), board(machine(2), {0: 5}), overcommit=1)
    assert odd == {0: (8, 9, 10), 1: tuple(range(8))}


def test_cells_are_near_an_emulator_that_its_owner_pinned_though_memory_must_move() -> None:
    pinned = UserPins(emulator=frozenset({24}))
    made = celled((8, 1), (8, 1), owned=pinned, resident={0: GIB, 1: GIB})
    assert number_by_node(spread(made)) == {2: 8, 3: 8}
