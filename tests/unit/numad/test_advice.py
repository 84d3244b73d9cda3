# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest should start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.machines import guest, machine, planned
from tuned_virt.kernel import cpuset
from tuned_virt.model.topology import Host
from tuned_virt.numad import advice
from tuned_virt.numad.advice import (
    STARTS,
    Advice,
    Advised,
    Asked,
    Guests,
    Node,
    Running,
    advise,
    counted,
    followed,
    noted,
)
from tuned_virt.numad.machine import with_guests
from tuned_virt.placement import Placement, balanced, core_yield

NEAR = {0: {1: 12, 2: 21, 3: 21}, 1: {0: 12, 2: 21, 3: 21}, 2: {3: 12, 0: 21, 1: 21}, 3: {2: 12}}


def cpus(many: int) -> frozenset[int]:
    return frozenset(range(many))


def four(available: int = 16000, **changed: int) -> list[Node]:
    return [
        Node(one, cpus(8), changed.get(f"n{one}", available), 0.0, NEAR[one]) for one in range(4)
    ]


@pytest.mark.parametrize(
    ("nodes", "vcpus", "mib", "wanted"),
    [
        (four(), 4, 4096, [0]),
        (four(n2=20000), 4, 4096, [2]),
        ([one._replace(vcpus=4.0 - one.id) for one in four()], 4, 4096, [3]),
        (four(2000, n1=5000), 4, 4096, [1]),
        (four(), 12, 4096, [0, 1]),
        (four(n0=2000, n1=3000), 4, 30000, [2, 3]),
        (four(), 4, 60000, [0, 1, 2, 3]),
        (four(), 4, 10**9, [0, 1, 2, 3]),
        ([Node(0, cpus(2), 1000), Node(1, cpus(16), 9000)], 2, 500, [1]),
    ],
)
def test_the_node_that_stays_most_level_or_the_nearest_that_have_room(
    nodes: list[Node], vcpus: int, mib: int, wanted: list[int]
) -> None:
    assert advise(nodes, Asked(vcpus, mib)) == Advice(tuple(wanted))


def test_a_guest_that_no_node_has_ordinary_memory_for_is_one_of_huge_pages() -> None:
    nodes = four(4000)
    nodes[2], nodes[3] = nodes[2]._replace(pools=16384), nodes[3]._replace(pools=20480)
    assert advise(nodes, Asked(4, 4000)) == Advice((0,))
    assert advise(nodes, Asked(4, 8192)) == Advice((2,), huge=True)
    assert started(nodes, 4, 2, 8192) == {2: 2, 3: 2}
    taken = noted(Advice((2,), huge=True), nodes, Asked(4, 8192), 0.0)
    assert counted(nodes, [taken])[2] == nodes[2]._replace(pools=8192, vcpus=4.0)
    now = nodes[2]._replace(pools=8192, vcpus=4.0)
    assert counted([now], [taken._replace(guest=17)]) == [now]


def test_threads_are_not_cores_where_a_guest_would_lose_by_it() -> None:
    """Of 8 cores with 16 threads 16 busy vCPUs get 10.4; on two such nodes 16 of their own."""
    nodes = [Node(number, cpus(16), 64000, cores=8) for number in range(2)]
    assert advise(nodes, Asked(8, 1024)) == Advice((0,))
    assert advise(nodes, Asked(16, 1024)) == Advice((0, 1))


def test_a_node_that_is_fuller_than_the_others_is_not_advised_for_its_memory() -> None:
    nodes = [
        Node(0, cpus(8), 1000, vcpus=0.0),
        Node(1, cpus(8), 9000, vcpus=16.0),
        Node(2, cpus(8), 1000, vcpus=0.0),
    ]
    assert advise(nodes, Asked(4, 800)) == Advice((0,))
    assert len(advise(nodes, Asked(4, 8000)).nodes) > 1


def test_the_numbers_are_the_planners() -> None:
    assert (advice.KEPT, advice.SMT_GAIN) == (balanced.KEPT, core_yield.SMT_GAIN)


def of_host(host: Host, made: Iterable[Placement]) -> tuple[list[Node], float]:
    """The nodes of a machine of equal cores with its guests, and those that float over all."""
    found = []
    for node in host.nodes:
        cores = len({host.cpus[cpu].siblings for cpu in node.cpus})
        one = Node(node.id, node.cpus, node.memory >> 10, 0.0, node.distances, cores)
        found.append(one)
    texts = (text for one in made for text in one.vcpus.values())
    masks = tuple(sum(1 << cpu for cpu in cpuset.parse(text)) for text in texts)
    return with_guests(found, [Running(1, masks)])


@given(
    st.integers(2, 4),
    st.integers(1, 8),
    st.integers(1, 2),
    st.lists(st.sampled_from([1, 1, 2, 2, 3, 4, 6, 8, 12, 16]), min_size=1, max_size=40),
)
def test_it_names_the_nodes_that_vm_pinning_would_use(
    number: int, cores: int, threads: int, sizes: list[int]
) -> None:
    """Guests one after the other on nodes with much memory: on one node where that has room, and on
    that one, or on another that is as full; else on several."""
    host = machine(number, cores, threads, llcs=1, gib=4096)
    made: dict[str, Placement] = {}
    guests = []
    for name, vcpus in enumerate(sizes):
        nodes, floating = of_host(host, made.values())
        advised = advise(nodes, Asked(vcpus, 1024, floating)).nodes
        guests.append(guest(f"g{name:02}", vcpus))
        made = planned(host, *guests, current=made.values(), overcommit="auto")
        chosen = made[f"g{name:02}"].nodes
        assert (len(advised) == 1) == (len(chosen) == 1), (nodes, vcpus, advised, chosen)
        if len(chosen) == 1:
            assert nodes[advised[0]].vcpus == pytest.approx(nodes[chosen[0]].vcpus)


def test_without_a_node_there_is_none() -> None:
    with pytest.raises(ValueError, match="no node"):
        advise([], Asked(1, 1))


def started(nodes: list[Node], guests: int, vcpus: int, mib: int) -> Counter[int]:
    """How many of guests that start at once are advised to each node."""
    advised: list[Advised] = []
    for _ in range(guests):
        found = advise(counted(nodes, advised), Asked(vcpus, mib))
        advised.append(noted(found, nodes, Asked(vcpus, mib), 0.0))
    return Counter(node for one in advised for node in one.nodes)


def test_guests_that_start_at_once_are_spread() -> None:
    assert started(four(), 8, 2, 3000) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_what_shows_already_is_not_counted_twice() -> None:
    then, now = 16000, 13000
    one = Advised((0,), 2, 3000, {0: then}, 0.0)
    [untouched] = counted([Node(0, cpus(8), then, 4.0)], [one])
    [runs] = counted([Node(0, cpus(8), then, 6.0)], [one._replace(guest=17)])
    [touched] = counted([Node(0, cpus(8), now, 6.0)], [one._replace(guest=17)])
    assert [some.available for some in (untouched, runs, touched)] == [13000] * 3
    assert [some.vcpus for some in (untouched, runs, touched)] == [6] * 3


TWO = [Node(0, frozenset({0, 1}), 900), Node(1, frozenset({2, 3}), 900)]
FIRST, SECOND = 0b0011, 0b1100


def advised(node: int, vcpus: int = 1, time: float = 0.0, guest: int = 0) -> Advised:
    return Advised((node,), vcpus, 64, {node: 900}, time, guest=guest)


@pytest.mark.parametrize(
    ("lately", "running", "guests"),
    [
        ([advised(0)], [], [0]),
        ([advised(0)], [Running(8, (FIRST,))], [8]),
        ([advised(0)], [Running(8, (SECOND,))], [0]),
        ([advised(0)], [Running(8, (FIRST | SECOND,))], [0]),
        ([advised(0, vcpus=2)], [Running(8, (FIRST,))], [0]),
        ([advised(0)], [Running(5, (FIRST,))], [0]),
        ([advised(0), advised(0)], [Running(8, (1,)), Running(9, (FIRST,))], [8, 9]),
        ([advised(1), advised(0)], [Running(8, (FIRST,))], [0, 8]),
        ([advised(0, guest=5)], [Running(5, (FIRST,))], [5]),
        ([advised(0, guest=5)], [], []),
        ([advised(0, time=-STARTS)], [], []),
        ([advised(0, time=-STARTS)], [Running(8, (FIRST,))], [8]),
        ([advised(0, time=-STARTS, guest=5)], [Running(5, (FIRST,))], [5]),
    ],
    ids=[
        "it may still start",
        "it runs",
        "another one runs on another node",
        "another one floats",
        "another one is smaller",
        "another one ran before",
        "both run",
        "the second runs already",
        "it runs on",
        "it has ended",
        "it did not start",
        "it runs after long",
        "it runs and may not have touched its memory",
    ],
)
def test_advice_counts_while_its_guest_starts_and_runs(
    lately: list[Advised], running: list[Running], guests: list[int]
) -> None:
    found = followed(lately, Guests(running), {5}, TWO, 0.0)
    assert [one.guest for one in found] == guests


def test_advice_counts_for_as_long_as_qemu_allocates_its_guests_memory() -> None:
    """Of three that have no vCPUs yet two have a file of state: the last two."""
    lately = [advised(node, time=time) for node, time in ((0, -99.0), (1, -98.0), (0, -97.0))]
    for starting, kept in ((0, 0), (1, 1), (2, 2), (3, 3), (9, 3)):
        assert followed(lately, Guests([], starting), set(), TWO, 0.0) == lately[3 - kept :]
    some = [*lately, advised(1, time=-1.0)]
    assert followed(some, Guests(), set(), TWO, 0.0) == some[3:]
    assert followed(some, Guests([], 2), set(), TWO, 0.0) == some[2:]


def test_a_guest_that_is_replaced_at_once_leaves_its_node_to_the_next() -> None:
    """It ran for twelve seconds, in which nobody asked: its advice counted for a minute, and the
    next one joined another guest on the other node."""
    running = [Running(7, (SECOND,))]
    here = [_with(node, running) for node in TWO]
    lately = followed([advised(0, time=-12.0)], Guests(running), {7}, TWO, 0.0)
    assert advise(counted(here, lately), ASKED).nodes == (0,)


@given(st.lists(st.booleans(), max_size=30))
def test_guests_that_come_and_go_have_a_node_each(stops: list[bool]) -> None:
    """A guest that had ended counted as one that starts for five minutes, so that the third start
    of one was torn over both nodes."""
    lately: list[Advised] = []
    running: list[Running] = []
    known: set[int] = set()
    for number, stop in enumerate(stops, 1):
        now = number * STARTS * 0.7
        if running and (stop or len(running) == 3):
            running.pop(0)
        here = [_with(node, running) for node in TWO]
        lately = followed(lately, Guests(running), known, TWO, now)
        advice = advise(counted(here, lately), ASKED)
        assert len(advice.nodes) == 1, (running, lately)
        known = {guest.id for guest in running}
        lately.append(noted(advice, here, ASKED, now))
        running.append(Running(number, (FIRST << 2 * advice.nodes[0],)))


ASKED = Asked(1, 200)


def _with(node: Node, running: list[Running]) -> Node:
    """A node with the guests that run there and have touched their memory."""
    there = sum(guest.masks == (FIRST << 2 * node.id,) for guest in running)
    return node._replace(vcpus=there, available=900 - ASKED.mib * there)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(0, 10**6)), min_size=1, max_size=8),
    st.integers(1, 512),
    st.integers(0, 10**7),
)
def test_the_advice_is_of_this_machine_and_has_room_where_there_is_any(
    sizes: list[tuple[int, int]], vcpus: int, mib: int
) -> None:
    nodes = [Node(number, cpus(many), free) for number, (many, free) in enumerate(sizes)]
    found = list(advise(nodes, Asked(vcpus, mib)).nodes)
    assert found and found == sorted(set(found))
    assert set(found) <= {node.id for node in nodes}
    chosen = [node for node in nodes if node.id in found]
    if sum(node.available for node in nodes) >= mib:
        assert sum(node.available for node in chosen) >= mib
    if any(node.available >= mib and len(node.cpus) >= vcpus for node in nodes):
        assert len(found) == 1
