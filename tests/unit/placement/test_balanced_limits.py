# SPDX-License-Identifier: GPL-2.0-or-later
"""overcommit=auto on a board: what a node has room for, who stays, and even cuts.

8 cores with two threads give n busy threads 8 + 0.3 (n - 8) cores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.unit.machines import GIB, guest, machine
from tuned_virt.model.guest import Cell, CpuTopology, Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement.balanced import Balanced
from tuned_virt.placement.demand import demand
from tuned_virt.placement.host_capacity import UNCAPPED, HostCapacity
from tuned_virt.placement.node_capacity import NodeCapacity, NodeMemory
from tuned_virt.placement.policy import PlacementPolicy

WIDE = machine(2, cores=8, gib=64)
PLAIN = machine(2, cores=9, threads=1, llcs=1)
POWER = machine(2, cores=8, threads=4)
SINGLE = machine(1, cores=8, threads=1)


def way(
    host: Host,
    wants: Guest,
    floating: float = 0,
    loads: tuple[float, ...] = (),
    owned: int = 0,
    dedicated: int = 0,
) -> Balanced:
    """A guest on a host of which node 0 has CPUs of owners (a mask), and dedicated ones."""
    nodes = [NodeCapacity(one, 0, 0, 0 if at else owned) for at, one in enumerate(host.grid.nodes)]
    nodes[0].take(dedicated)
    made = HostCapacity(host, nodes, NodeMemory(host))
    made.floating = floating
    for node, load in zip(nodes, loads):
        node.load = load
    return Balanced(made, demand(wants, PlacementPolicy(), host.huge_page))


def threaded(vcpus: int) -> Guest:
    return guest("a", vcpus, topology=CpuTopology(cores=vcpus // 2, threads=2))


@pytest.mark.parametrize(
    ("of", "free", "stays"),
    [
        (partial(way, WIDE, guest("a", 16), 16), 9, 9),  # 8 + 0.3 (n - 8) = 0.9 n
        (partial(way, WIDE, guest("a", 16), 16, (8,)), 1, 9),
        (partial(way, WIDE, guest("a", 16), 16, (10,)), 0, 9),
        (partial(way, WIDE, threaded(16), 16), 16, 16),
        (partial(way, WIDE, threaded(16), 16, (1,)), 8, 16),
        (partial(way, POWER, threaded(16), 16), 17, 17),  # 10.4 = 0.9 x 0.65 n
        (partial(way, PLAIN, guest("a", 4), 10, (1,)), 9, 10),  # 9 = 0.9 n
        (
            partial(way, WIDE, guest("a", 4), 4, dedicated=0xFFFE),
            0,
            9,
        ),  # a thread of a core is no core
        (partial(way, WIDE, guest("a", 4), 4, (1,), dedicated=0xFFFF), 0, 0),
        (partial(way, SINGLE, guest("a", 4), 99), UNCAPPED, UNCAPPED),
        (partial(way, SINGLE, guest("a", 4), 7, owned=3), 6, 6),  # 6 = 0.9 n
        (partial(way, SINGLE, guest("a", 4), 12, owned=3), 0, 0),
    ],
)
def test_room_and_who_stays(of: Callable[[], Balanced], free: int, stays: int) -> None:
    """Others who have come send nobody away where that could move it to another node."""
    made = of()
    assert made.free_vcpus(0) == free
    assert made.keeps(0, stays) or not stays
    assert not made.keeps(0, stays + 1)


def test_nodes_of_other_cores_have_no_room_and_keep_nobody() -> None:
    cpus = {
        number: replace(cpu, capacity=1024 if number < 16 else 512)
        for number, cpu in WIDE.cpus.items()
    }
    made = way(replace(WIDE, cpus=cpus), guest("a", 1), loads=(1,))
    assert (made.free_vcpus(0), made.keeps(0, 1), list(made.rate([0, 1]))) == (0, False, [])


def test_the_score_is_the_load_against_all_that_the_cores_can_do() -> None:
    found = list(way(WIDE, guest("a", 4), 9, (2, 1), dedicated=0b11).rate([0, 1]))
    assert found == [((0, 0, 0.659341, 0), 0), ((0, 0, 0.480769, 0), 1)]


def test_a_guest_that_just_fits_is_rated() -> None:
    """9 of 10 cores, the tenth being an owner's, leave a guest of any size just nine tenths."""
    host = machine(1, cores=10, threads=1, llcs=1)
    for vcpus in range(10, 100):
        assert list(way(host, guest("a", vcpus), 9, owned=1).rate([0])), vcpus
    assert not list(way(host, guest("a", 12), 9, owned=3).rate([0]))


def numbers(made: Balanced, *cut: int) -> dict[int, int]:
    """vCPUs by node, of a cut into so many and in the order of their numbers."""
    whole, ends = made.wanted.whole.vcpus, [sum(cut[: at + 1]) for at in range(len(cut))]
    found = made.levelled({at: whole[end - cut[at] : end] for at, end in enumerate(ends)})
    assert tuple(vcpu for vcpus in found.values() for vcpu in vcpus) == whole
    return {at: len(vcpus) for at, vcpus in found.items()}


HALVES = tuple(Cell(at, frozenset(range(12 * at, 12 * at + 12)), GIB) for at in range(2))
DIES = CpuTopology(dies=2, cores=12)
SMALL = replace(
    WIDE,
    nodes=(WIDE.nodes[0], replace(WIDE.nodes[1], cpus=frozenset(range(16, 24)))),
    cpus={number: cpu for number, cpu in WIDE.cpus.items() if number < 24},
)


@pytest.mark.parametrize(
    ("of", "cut", "level"),
    [
        (partial(way, WIDE, guest("a", 12), 12), (8, 4), (8, 4)),  # within its cores
        (partial(way, WIDE, guest("a", 13), 13), (9, 4), (7, 6)),
        (partial(way, WIDE, guest("a", 20), 18), (16, 4), (10, 10)),  # just the room that there is
        (partial(way, WIDE, guest("a", 24), 18), (16, 8), (16, 8)),  # no room for an even cut
        (partial(way, WIDE, guest("a", 16), 40, (0, 5)), (15, 1), (9, 7)),  # node 0 has room for 9
        (partial(way, WIDE, guest("a", 12), 12, dedicated=0xFF), (6, 6), (4, 8)),  # 4 and 8 cores
        (partial(way, WIDE, threaded(16), 16, (0, 30)), (8, 8), (16,)),
        (partial(way, WIDE, threaded(18), 18), (16, 2), (10, 8)),  # whole cores
        (partial(way, SMALL, guest("a", 16), 40), (12, 4), (11, 5)),  # 8 cores and 4
        (partial(way, WIDE, guest("a", 24, cells=HALVES), 24), (16, 8), (16, 8)),
        (partial(way, WIDE, guest("a", 24, topology=DIES), 24), (16, 8), (16, 8)),
    ],
)
def test_cuts_beyond_the_cores_are_level(
    of: Callable[[], Balanced], cut: tuple[int, ...], level: tuple[int, ...]
) -> None:
    assert numbers(of(), *cut) == dict(enumerate(level))


def test_words() -> None:
    made = way(WIDE, guest("a", 1))
    assert [made.room(vcpus) for vcpus in (1, 2)] == ["room for 1 vCPU", "room for 2 vCPUs"]


@pytest.mark.parametrize(
    ("more", "memory"), [({}, {0: GIB, 1: GIB}), ({"resident": {1: 2 * GIB}}, {1: 2 * GIB})]
)
def test_anywhere_is_all_vcpus_on_all_nodes_with_memory_where_it_is(
    more: dict[str, Any], memory: dict[int, int]
) -> None:
    made = way(WIDE, guest("a", 4, 2, **more)).anywhere("why")
    assert made is not None
    assert made.vcpus_by_node == {0: (0, 1, 2, 3), 1: (0, 1, 2, 3)}
    assert {one.node: one.memory for one in made.shares} == memory
