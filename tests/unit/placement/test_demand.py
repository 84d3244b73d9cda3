# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest needs of a host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.machines import GIB, guest
from tuned_virt.model.guest import Cell, CpuTopology, Guest, HugePages, UserPins
from tuned_virt.placement.demand import GuestDemand, GuestPart, demand
from tuned_virt.placement.policy import MemoryMode, PlacementMode, PlacementPolicy, Smt

M2, G1 = 2048, 1 << 20


def of(made: Guest, **policy: object) -> GuestDemand:
    return demand(made, PlacementPolicy(**policy), M2)  # type: ignore[arg-type]


TWO = (Cell(0, frozenset({0, 1}), GIB), Cell(3, frozenset({2, 3}), 3 * GIB))


def test_a_guest_without_cells_is_one_part() -> None:
    found = of(guest("a", 2, 1))
    assert (found.whole, found.cells) == (GuestPart(-1, (0, 1), GIB, {}, None), ())
    held = of(guest("a", 2, 1, owned=UserPins(nodes=frozenset({1}))))
    assert held.whole == GuestPart(-1, (0, 1), GIB, {}, frozenset({1}))


def test_huge_pages_of_no_size_are_the_hosts() -> None:
    assert of(guest("a", 1, 1, huge_pages=(HugePages(None),))).whole.huge == {M2: 512}
    cells = of(guest("a", 4, 4, cells=TWO, huge_pages=(HugePages(None),))).cells
    assert [(part.cell, part.huge) for part in cells] == [(0, {M2: 512}), (3, {M2: 1536})]


def test_an_owner_who_names_no_node_allows_all() -> None:
    owned = UserPins(memnodes={0: frozenset(), 3: frozenset({1})})
    found = of(guest("a", 4, 4, cells=TWO, owned=owned))
    assert [part.allowed for part in found.cells] == [None, frozenset({1})]


def test_cells_are_parts_and_their_sum() -> None:
    found = of(guest("a", 4, 99, cells=TWO))
    assert found.cells == (
        GuestPart(0, (0, 1), GIB, {}, None),
        GuestPart(3, (2, 3), 3 * GIB, {}, None),
    )
    assert found.whole == GuestPart(-1, (0, 1, 2, 3), 4 * GIB, {}, None)


def test_one_cell_is_no_several() -> None:
    found = of(guest("a", 2, 99, cells=(Cell(0, frozenset({0, 1}), GIB),)))
    assert (found.whole, found.cells) == (GuestPart(-1, (0, 1), GIB, {}, None), ())


def test_vcpus_in_no_cell_are_the_first_ones() -> None:
    """Offline ones are in none."""
    found = of(replace(guest("a", 8, 1, cells=TWO), online=(0, 2, 5, 6)))
    assert [part.vcpus for part in found.cells] == [(0, 5, 6), (2,)]
    assert found.whole.vcpus == (0, 2, 5, 6)


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ((), ({}, {})),
        ((HugePages(None),), ({M2: 512}, {M2: 1536})),
        ((HugePages(G1),), ({G1: 1}, {G1: 3})),
        ((HugePages(4),), ({}, {})),
        ((HugePages(64),), ({}, {})),
        ((HugePages(65),), ({65: 16132}, {65: 48396})),
        ((HugePages(G1, frozenset({3})),), ({}, {G1: 3})),
        ((HugePages(M2), HugePages(G1, frozenset({3}))), ({M2: 512}, {G1: 3})),
        ((HugePages(G1, frozenset({3})), HugePages(M2)), ({M2: 512}, {G1: 3})),
        ((HugePages(None, frozenset({0})), HugePages(G1)), ({M2: 512}, {G1: 3})),
    ],
)
def test_pages_by_cell(
    pages: tuple[HugePages, ...], expected: tuple[dict[int, int], dict[int, int]]
) -> None:
    found = of(guest("a", 4, 4, cells=TWO, huge_pages=pages))
    assert tuple(part.huge for part in found.cells) == expected
    assert [part.memory for part in found.cells] == [
        0 if huge else cell.memory for huge, cell in zip(expected, TWO)
    ]
    total = {
        size: sum(huge.get(size, 0) for huge in expected) for huge in expected for size in huge
    }
    assert found.whole.huge == total


def test_pages_that_name_a_cell_are_those_of_a_guest_without_any() -> None:
    found = of(guest("a", 2, 1, huge_pages=(HugePages(G1, frozenset({0})),)))
    assert (found.whole.memory, found.whole.huge) == (0, {G1: 1})
    part = of(guest("a", 2, 1.5, huge_pages=(HugePages(G1),))).whole
    assert part.huge == {G1: 2}, "a page that is not filled is one"


def test_the_owners_nodes_of_cells() -> None:
    nodes, first = frozenset({0, 1}), frozenset({1})
    both = of(guest("a", 4, cells=TWO, owned=UserPins(nodes=nodes, memnodes={0: first})))
    assert [part.allowed for part in both.cells] == [first, nodes]
    assert both.whole.allowed == first
    one = of(guest("a", 4, cells=TWO, owned=UserPins(memnodes={3: first})))
    assert [part.allowed for part in one.cells] == [None, first]
    assert one.whole.allowed == first
    apart = UserPins(memnodes={0: frozenset({0}), 3: frozenset({1})})
    assert of(guest("a", 4, cells=TWO, owned=apart)).whole.allowed == frozenset()
    assert of(guest("a", 4, cells=TWO)).whole.allowed is None


@pytest.mark.parametrize(
    ("made", "mode", "ours"),
    [
        (guest("a", 1), MemoryMode.MOVE, True),
        (guest("a", 1), MemoryMode.NONE, False),
        (guest("a", 1, owned=UserPins(memory="strict")), MemoryMode.MOVE, False),
        (guest("a", 1, owned=UserPins(memnodes={0: frozenset({0})})), MemoryMode.MOVE, False),
        (guest("a", 1, locked=True), MemoryMode.MOVE, True),
        (guest("a", 1, resident={0: 1}), MemoryMode.MOVE, True),
        (guest("a", 1, locked=True, resident={0: 1}), MemoryMode.MOVE, False),
    ],
)
def test_whether_its_memory_is_ours_to_place(made: Guest, mode: MemoryMode, ours: bool) -> None:
    assert of(made, memory=mode).memory_is_ours is ours


def test_guests_of_one_shape_find_room_alike() -> None:
    base = guest("a", 4, 4, cells=TWO)
    assert of(base).shape == of(replace(base, name="b", uuid="b", notes=("x",))).shape
    others = [
        of(base, smt=Smt.ISOLATE),
        of(base, overcommit=2.0),
        of(replace(base, topology=CpuTopology(threads=2))),
        of(replace(base, cells=())),
        of(replace(base, cells=(TWO[0], replace(TWO[1], memory=2 * GIB)))),
        of(replace(base, online=(0, 1, 2))),
        of(replace(base, huge_pages=(HugePages(M2),))),
        of(replace(base, owned=UserPins(nodes=frozenset({0})))),
        of(replace(base, locked=True, resident={0: 1})),
        of(replace(base, locked=True, resident={1: 1})),
    ]
    shapes = {of(base).shape, *(one.shape for one in others)}
    assert len(shapes) == len(others) + 1
    movable = replace(base, resident={0: 1})
    assert of(movable).shape == of(base).shape, "its memory follows"
    locked = replace(base, locked=True)
    assert (
        of(replace(locked, resident={0: 1, 1: 2})).shape
        == of(replace(locked, resident={1: 5, 0: 3})).shape
    )


def test_the_hardest_come_first() -> None:
    hard = [
        of(guest("z", 1, 1, devices=("d",)), policy=PlacementMode.DEDICATED),
        of(guest("y", 4, 1), policy=PlacementMode.DEDICATED),
        of(guest("x", 2, 9), policy=PlacementMode.DEDICATED),
        of(guest("w", 2, 1), policy=PlacementMode.DEDICATED),
        of(guest("q", 8, 1, huge_pages=(HugePages(M2),))),
        of(guest("p", 7, 1, owned=UserPins(nodes=frozenset({0})))),
        of(guest("o", 6, 1, locked=True, resident={0: 1})),
        of(guest("n", 5, 1, resident={0: 1})),
        of(guest("m", 4, 1, locked=True)),
        of(guest("l", 3, 9)),
        of(guest("k", 3, 1)),
        of(replace(guest("j", 2, 1), uuid="b")),
        of(replace(guest("j", 2, 1), uuid="c")),
    ]
    assert sorted(hard[::-1], key=lambda one: one.hardness) == hard
