# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPUs of a node are taken, and how well a guest sits on what is free."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.machines import GIB, machine
from tuned_virt.model.topology import CpuDetail, Host, NumaNode
from tuned_virt.placement import cores
from tuned_virt.placement.node_capacity import NodeCapacity
from tuned_virt.placement.policy import Smt


def room(*gone: int, cores: int = 8, threads: int = 1, llcs: int = 2) -> NodeCapacity:
    """A node's CPUs, bit = number, without those that are gone."""
    of = machine(1, cores=cores, threads=threads, llcs=llcs)
    made = NodeCapacity(of.grid.nodes[0], 0, 0, 0)
    made.take(sum(1 << cpu for cpu in gone))
    return made


def smt(*gone: int) -> NodeCapacity:
    """Two LLCs, each of four cores with two threads: CPUs 0-7 and 8-15."""
    return room(*gone, cores=8, threads=2)


HYBRID_CPUS = {
    cpu: CpuDetail(cpu, 0, 0, 0, cpu, frozenset({cpu - cpu % 2, cpu - cpu % 2 + 1}))
    if cpu < 4
    else CpuDetail(cpu, 0, 0, 0, cpu, frozenset({cpu}))
    for cpu in range(8)
}
HYBRID = Host((NumaNode(0, frozenset(range(8)), 8 * GIB, {0: 10}, {}),), HYBRID_CPUS)
"""CPUs 0-3 on two cores with SMT, 4-7 without."""


def allotted(free: NodeCapacity, vcpus: int, threads: int = 1, how: Smt = Smt.PREFER) -> list[int]:
    bits, _ = cores.allot(free, vcpus, cores.VcpuShape(threads), how)
    assert len(set(bits)) == vcpus
    assert all(free.free >> bit & 1 for bit in bits)
    return bits


# --- how well it fits -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "vcpus", "threads", "expected"),
    [
        (room(), 4, 1, (1, 0, 0)),
        (room(), 3, 1, (1, 0, 1)),
        (room(0, 1), 2, 1, (1, 0, 0)),
        (room(0, 1), 3, 1, (1, 0, 1)),
        (room(), 5, 1, (2, 0, 3)),
        (room(), 8, 1, (2, 0, 0)),
        (room(0, 1, 2), 5, 1, (2, 0, 0)),
        (room(llcs=4), 4, 1, (2, 0, 0)),
        (room(0, 1, 2, 3), 2, 1, (1, 0, 2)),
        (room(cores=12, llcs=3), 9, 1, (3, 0, 3)),
        (room(0, 1, 2, cores=12, llcs=3), 6, 1, (2, 0, 2)),
        (room(0, 1, 2, cores=12, llcs=3), 9, 1, (3, 0, 0)),
    ],
)
def test_llcs_spanned_and_cpus_left_over(
    free: NodeCapacity, vcpus: int, threads: int, expected: tuple[int, int, int]
) -> None:
    assert cores.fit(free, vcpus, cores.VcpuShape(threads)) == (0, 0, *expected)


@pytest.mark.parametrize(
    ("free", "vcpus", "threads", "expected"),
    [
        (smt(), 4, 2, (1, 0, 4)),
        (smt(0, 2, 4), 4, 2, (1, 0, 4)),
        (smt(0, 2, 4, 8, 10, 12), 4, 2, (1, 1, 1)),
        (smt(0, 2, 4, 6, 8, 10, 12, 14), 4, 2, (1, 2, 0)),
        (smt(0, 2, 4, 6, 8, 10, 12, 14), 4, 1, (1, 0, 0)),
        (smt(0, 2, 4, 6, 8, 10, 12, 14), 3, 2, (1, 1, 1)),
        (smt(0, 2, 4, 6, 8, 10, 12, 14), 1, 2, (1, 0, 3)),
        (smt(0, 2, 4, *range(8, 16)), 3, 2, (1, 0, 2)),
        (room(), 4, 2, (1, 0, 0)),
    ],
    ids=[
        "whole cores",
        "an LLC of whole cores before a fuller one of torn",
        "one whole core is left in each",
        "no whole core is left",
        "a guest without threads tears none",
        "of two it takes one whole",
        "none",
        "the odd one out",
        "a host without SMT has none",
    ],
)
def test_guest_cores_torn_apart(
    free: NodeCapacity, vcpus: int, threads: int, expected: tuple[int, int, int]
) -> None:
    assert cores.fit(free, vcpus, cores.VcpuShape(threads)) == (0, 0, *expected)


# --- which CPUs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "vcpus", "expected"),
    [
        (room(), 4, [0, 1, 2, 3]),
        (room(0), 4, [4, 5, 6, 7]),
        (room(0, 4), 3, [1, 2, 3]),
        (room(0, 4, 5), 2, [6, 7]),
        (room(), 6, [0, 1, 2, 3, 4, 5]),
        (room(0), 6, [4, 5, 6, 7, 1, 2]),
        (room(0, 1, 4), 5, [5, 6, 7, 2, 3]),
        (room(0, 1, 2, cores=12, llcs=3), 5, [4, 5, 6, 7, 3]),
        (room(0, 1, 2, 4, cores=12, llcs=3), 7, [8, 9, 10, 11, 5, 6, 7]),
        (room(0, 1, 2, 4, cores=12, llcs=3), 8, [8, 9, 10, 11, 5, 6, 7, 3]),
    ],
)
def test_the_fullest_llc_that_holds_all_else_the_emptiest_first(
    free: NodeCapacity, vcpus: int, expected: list[int]
) -> None:
    assert allotted(free, vcpus) == expected


@pytest.mark.parametrize(
    ("free", "vcpus", "threads", "expected"),
    [
        (smt(), 4, 1, [0, 1, 2, 3]),
        (smt(0, 3), 4, 1, [4, 5, 6, 7]),
        (smt(0, 3), 5, 1, [4, 5, 6, 7, 1]),
        (smt(0, 3), 6, 1, [4, 5, 6, 7, 1, 2]),
        (smt(0, *range(8, 16)), 1, 1, [1]),
        (smt(0, *range(8, 16)), 2, 1, [2, 3]),
        (smt(0, *range(8, 16)), 3, 1, [2, 3, 1]),
        (smt(0, 2, 4, 8, 10, 12), 4, 2, [6, 7, 1, 3]),
        (smt(0, 1, 8, 10, 12, 14), 4, 2, [2, 3, 4, 5]),
        (smt(0, 8, 9, 10, 11), 4, 2, [12, 13, 14, 15]),
        (smt(0, 8), 10, 2, [2, 3, 4, 5, 6, 7, 10, 11, 12, 13]),
        (smt(0, 8), 14, 2, [2, 3, 4, 5, 6, 7, 1, 10, 11, 12, 13, 14, 15, 9]),
        (smt(0), 15, 1, [8, 9, 10, 11, 12, 13, 14, 15, 2, 3, 4, 5, 6, 7, 1]),
    ],
)
def test_whole_cores_first_then_the_most_fragmented(
    free: NodeCapacity, vcpus: int, threads: int, expected: list[int]
) -> None:
    assert allotted(free, vcpus, threads) == expected


def four_threads(*gone: int) -> NodeCapacity:
    return room(*gone, cores=4, threads=4, llcs=1)


@pytest.mark.parametrize(
    ("free", "vcpus", "threads", "expected"),
    [
        (four_threads(), 6, 2, [0, 1, 2, 3, 4, 5]),
        (four_threads(0, 4, 5), 2, 2, [6, 7]),
        (four_threads(0, 4, 5, *range(8, 16)), 4, 2, [1, 2, 6, 7]),
        (four_threads(0, 4, 5, *range(8, 16)), 5, 2, [1, 2, 6, 7, 3]),
        (four_threads(0, 1, 2, 4, 8, 12), 3, 1, [5, 6, 7]),
        (four_threads(0, 1, 2, 4, 8, 12), 4, 2, [5, 6, 9, 10]),
        (four_threads(0, 1, 2, 4, 8, 12), 7, 2, [5, 6, 9, 10, 13, 14, 3]),
        (four_threads(0, 1, 2, 4, 8, 12), 8, 2, [5, 6, 9, 10, 13, 14, 3, 7]),
    ],
)
def test_a_guests_threads_stay_on_one_core(
    free: NodeCapacity, vcpus: int, threads: int, expected: list[int]
) -> None:
    assert allotted(free, vcpus, threads) == expected


def test_the_fast_cores_of_a_hybrid_node() -> None:
    free = NodeCapacity(HYBRID.grid.nodes[0], 0, 0, 0)
    assert allotted(free, 4, 2) == [0, 1, 2, 3]
    assert allotted(free, 6, 2) == [0, 1, 2, 3, 4, 5]
    assert cores.fit(free, 4, cores.VcpuShape(2)) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("free", "vcpus", "how", "bits", "idle"),
    [
        (smt(), 3, Smt.REQUIRE, [0, 1, 2], 1 << 3),
        (smt(), 4, Smt.REQUIRE, [0, 1, 2, 3], 0),
        (smt(0), 4, Smt.REQUIRE, [2, 3, 4, 5], 0),
        (smt(0), 7, Smt.REQUIRE, [8, 9, 10, 11, 12, 13, 14], 1 << 15),
        (smt(0), 9, Smt.REQUIRE, [8, 9, 10, 11, 12, 13, 14, 15, 2], 1 << 3),
        (smt(), 2, Smt.ISOLATE, [0, 2], 1 << 1 | 1 << 3),
        (smt(0), 3, Smt.ISOLATE, [2, 4, 6], 1 << 3 | 1 << 5 | 1 << 7),
        (smt(0), 4, Smt.ISOLATE, [8, 10, 12, 14], 0b10101010 << 8),
        (smt(0), 5, Smt.ISOLATE, [8, 10, 12, 14, 2], 0b10101010 << 8 | 1 << 3),
        (smt(0, 8, 10), 3, Smt.ISOLATE, [2, 4, 6], 1 << 3 | 1 << 5 | 1 << 7),
        (smt(0, 8, 10), 2, Smt.ISOLATE, [12, 14], 1 << 13 | 1 << 15),
        (room(), 2, Smt.ISOLATE, [0, 1], 0),
    ],
)
def test_cores_that_nobody_else_gets_anything_of(
    free: NodeCapacity, vcpus: int, how: Smt, bits: list[int], idle: int
) -> None:
    assert cores.allot(free, vcpus, cores.VcpuShape(), how) == (bits, idle)


def test_a_core_whose_sibling_is_offline_is_not_one_to_require() -> None:
    left = {cpu: detail for cpu, detail in HYBRID_CPUS.items() if cpu != 0}
    left[1] = replace(left[1], siblings=frozenset({1}))
    free = NodeCapacity(Host(HYBRID.nodes, left, offline=frozenset({0})).grid.nodes[0], 0, 0, 0)
    assert [free.grid.numbers(core) for core in free.whole_cores(Smt.REQUIRE)] == [[2, 3]]
    assert len(free.whole_cores(Smt.ISOLATE)) == 6


def test_the_rest_of_a_large_guest_is_put_where_it_fits_best() -> None:
    """LLCs with four, three and one core left: of five vCPUs the first takes four."""
    left = room(4, 8, 9, 10, cores=12, llcs=3)
    assert allotted(left, 5, how=Smt.ISOLATE) == [0, 1, 2, 3, 11]


def test_guest_cores_stay_whole_where_the_other_llcs_take_just_the_rest() -> None:
    """Three CPUs are left in one LLC, two in the other."""
    assert allotted(room(3, 6, 7), 4, 2) == [0, 1, 4, 5]


def test_broken_cores_that_take_as_many_guest_cores_are_used_in_their_order() -> None:
    """Of four threads the first has two left and the second three: one guest core each."""
    assert allotted(room(2, 3, 7, cores=2, threads=4, llcs=1), 4, 2) == [0, 1, 4, 5]


def test_cores_without_siblings_are_no_cores_for_who_requires_some() -> None:
    node = NodeCapacity(HYBRID.grid.nodes[0], 0, 0, 0)
    node.take(0b11)
    assert allotted(node, 2, 2, Smt.REQUIRE) == [2, 3]
