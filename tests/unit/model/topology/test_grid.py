# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's CPUs as bits: clusters, kinds of cores, distances, and where memory comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.unit.machines import GIB, machine
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.model.topology.grid import Cluster


def cpu(number: int, siblings: Iterable[int] = (), capacity: int = 1024, die: int = 0) -> CpuDetail:
    own = frozenset(siblings) or frozenset({number})
    return CpuDetail(number, 0, 0, die, min(own), own, capacity)


def host(*cpus: CpuDetail, caches: Iterable[Cache] = ()) -> Host:
    numbers = frozenset(one.id for one in cpus)
    node = NumaNode(0, numbers, 8 * GIB, {0: 10}, {})
    return Host((node,), {one.id: one for one in cpus}, tuple(caches))


def clusters(of: Host) -> list[tuple[list[list[int]], int]]:
    """Each cluster of the first node as CPUs by core, and the threads of a core."""
    [node] = of.grid.nodes
    return [([node.numbers(core) for core in one.cores], one.threads) for one in node.clusters]


HYBRID = host(cpu(0, {0, 1}), cpu(1, {0, 1}), cpu(2, {2, 3}), cpu(3, {2, 3}), cpu(4), cpu(5))


def test_cores_with_and_without_smt_are_two_kinds() -> None:
    assert clusters(HYBRID) == [([[0, 1], [2, 3]], 2), ([[4], [5]], 1)]


def test_a_core_whose_siblings_are_offline_is_no_kind_of_its_own() -> None:
    partly = replace(HYBRID, offline=frozenset({6, 7}))
    assert clusters(partly) == [([[0, 1], [2, 3], [4], [5]], 2)]


@pytest.mark.parametrize(
    "few",
    [
        host(cpu(0, {0, 1}), cpu(1, {0, 1}), cpu(2, {2, 3}), cpu(3, {2, 3}), cpu(4)),
        host(cpu(0, {0, 1}), cpu(1, {0, 1}), cpu(2), cpu(3)),
    ],
    ids=["one core without", "one core with"],
)
def test_one_odd_core_is_no_kind(few: Host) -> None:
    assert len(clusters(few)) == 1


def test_three_threads_of_a_core_are_no_kind_of_their_own() -> None:
    mixed = host(*(cpu(n, {0, 1, 2}) for n in range(3)), cpu(3, {3, 4}), cpu(4, {3, 4}))
    three = replace(mixed, cpus={**mixed.cpus, 5: cpu(5), 6: cpu(6)})
    node = replace(three.nodes[0], cpus=frozenset(range(7)))
    assert clusters(replace(three, nodes=(node,))) == [([[0, 1, 2], [3, 4]], 3), ([[5], [6]], 1)]


def test_the_fastest_cores_come_first() -> None:
    mixed = host(cpu(0, capacity=400), cpu(1, capacity=400), cpu(2), cpu(3))
    assert clusters(mixed) == [([[2], [3]], 1), ([[0], [1]], 1)]
    assert mixed.grid.nodes[0].cpus == (2, 3, 0, 1)


def test_a_cache_that_several_cores_share_is_a_cluster() -> None:
    caches = [Cache(frozenset({2, 3}), 1), Cache(frozenset({0, 1}), 1)]
    of_caches = host(*map(cpu, range(4)), caches=caches)
    assert clusters(of_caches) == [([[2], [3]], 1), ([[0], [1]], 1)]


def test_a_cache_of_one_core_is_no_cluster() -> None:
    pairs = [cpu(n, {n - n % 2, n - n % 2 + 1}) for n in range(4)]
    caches = [Cache(frozenset({0, 1}), 1), Cache(frozenset({2, 3}), 1)]
    assert clusters(host(*pairs, caches=caches)) == [([[0, 1], [2, 3]], 2)]


def test_cpus_without_a_cache_are_grouped_by_die_and_come_last() -> None:
    cpus = [cpu(n, die=n // 2 % 2) for n in range(6)]
    cache = Cache(frozenset({4, 5, 77}), 1)
    assert clusters(host(*cpus, caches=[cache])) == [
        ([[4], [5]], 1),
        ([[0], [1]], 1),
        ([[2], [3]], 1),
    ]


def test_sockets_are_told_apart() -> None:
    cpus = [replace(cpu(n), socket=n % 2) for n in range(4)]
    assert clusters(host(*cpus)) == [([[0], [2]], 1), ([[1], [3]], 1)]


def test_siblings_are_next_to_each_other_however_they_are_numbered() -> None:
    spread = host(*(cpu(n, {n % 2, n % 2 + 2}) for n in range(4)))
    [node] = spread.grid.nodes
    assert node.cpus == (0, 2, 1, 3)
    assert node.clusters == (Cluster(0b1111, (0b0011, 0b1100), 2),)
    assert node.core_of == (0b0011, 0b0011, 0b1100, 0b1100)
    assert (node.everything, node.isolated) == (0b1111, 0)
    assert spread.grid.where == {0: (0, 0), 2: (0, 1), 1: (0, 2), 3: (0, 3)}


def test_isolated_cpus_and_those_without_tick_are_quiet() -> None:
    some = replace(machine(1), isolated=frozenset({2}), nohz_full=frozenset({5}))
    assert some.grid.nodes[0].isolated == 1 << 2 | 1 << 5


def test_where_all_are_quiet_none_is() -> None:
    every = replace(machine(1), isolated=frozenset(range(4)), nohz_full=frozenset(range(4, 8)))
    assert every.grid.nodes[0].isolated == 0
    more = replace(machine(1), isolated=frozenset(range(9)))
    assert more.grid.nodes[0].isolated == 0


def test_nodes_without_cpus_are_not_in_the_grid() -> None:
    base = machine(2)
    empty = NumaNode(5, frozenset(), 64 * GIB, {0: 17, 1: 28, 5: 10}, {})
    gone = NumaNode(7, frozenset({99}), 1, {}, {})
    of = replace(base, nodes=(empty, gone, *base.nodes))
    assert [node.id for node in of.grid.nodes] == [0, 1]
    assert of.grid.node_index == {0: 0, 1: 1}
    assert of.grid.distances == ((10, 12), (12, 10))
    assert [node.memory_node for node in of.grid.nodes] == [0, 1]
    assert of.grid.where[8] == (1, 0)


def memories(*kib: int, cpus: Iterable[int] = (0, 1, 2)) -> list[int]:
    """The banks of three nodes with so much memory; distances 10, 20, 30."""
    nodes = tuple(
        NumaNode(
            number,
            frozenset({number}) if number in cpus else frozenset(),
            memory,
            {other: 10 + 10 * abs(number - other) for other in range(3)},
            {},
        )
        for number, memory in enumerate(kib)
    )
    of = Host(nodes, {number: replace(cpu(number), node=number) for number in cpus})
    return [node.memory_node for node in of.grid.nodes]


def test_memory_comes_from_the_nearest_node_that_has_some() -> None:
    assert memories(1, 1, 1) == [0, 1, 2]
    assert memories(0, 5, 5) == [1, 1, 2]
    assert memories(0, 0, 5) == [2, 2, 2]
    assert memories(5, 5, 0) == [0, 1, 1]
    assert memories(1, 0, 0) == [0, 0, 0]
    assert memories(0, 0, 0) == [0, 1, 2], "nothing is known"


def test_of_equally_near_memory_that_with_cpus_is_taken_first() -> None:
    assert memories(5, 0, 5) == [0, 0, 2], "else the lower number"
    assert memories(5, 0, 5, cpus=(1, 2)) == [2, 2]


def test_a_mask_names_its_cpus() -> None:
    node = machine(2).grid.nodes[1]
    assert node.numbers(0b10000101) == [8, 10, 15]
    assert node.numbers(0) == []
