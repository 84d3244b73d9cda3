# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest should start."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.numad.advice import Advised, Node, advise, counted

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
        ([one._replace(vcpus=8.0 - one.id) for one in four()], 4, 4096, [3]),
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
    assert advise(nodes, vcpus, mib) == wanted


def test_without_a_node_there_is_none() -> None:
    with pytest.raises(ValueError, match="no node"):
        advise([], 1, 1)


def started(nodes: list[Node], guests: int, vcpus: int, mib: int) -> Counter[int]:
    """How many of guests that start at once are advised to each node."""
    advised: list[Advised] = []
    for _ in range(guests):
        found = advise(counted(nodes, advised), vcpus, mib)
        available = {node.id: node.available for node in nodes if node.id in found}
        advised.append(Advised(tuple(found), vcpus, mib, available, {}, 0.0))
    return Counter(node for one in advised for node in one.nodes)


def test_guests_that_start_at_once_are_spread() -> None:
    assert started(four(), 8, 2, 3000) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_what_shows_already_is_not_counted_twice() -> None:
    then, now = 16000, 13000
    one = Advised((0,), 2, 3000, {0: then}, {0: 4.0}, 0.0)
    [untouched] = counted([Node(0, cpus(8), then, 4.0)], [one])
    [touched] = counted([Node(0, cpus(8), now, 6.0)], [one])
    assert (untouched.available, touched.available) == (13000, 13000)
    assert (untouched.vcpus, touched.vcpus) == (6, 6)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(0, 10**6)), min_size=1, max_size=8),
    st.integers(1, 512),
    st.integers(0, 10**7),
)
def test_the_advice_is_of_this_machine_and_has_room_where_there_is_any(
    sizes: list[tuple[int, int]], vcpus: int, mib: int
) -> None:
    nodes = [Node(number, cpus(many), free) for number, (many, free) in enumerate(sizes)]
    found = advise(nodes, vcpus, mib)
    assert found and found == sorted(set(found))
    assert set(found) <= {node.id for node in nodes}
    chosen = [node for node in nodes if node.id in found]
    if sum(node.available for node in nodes) >= mib:
        assert sum(node.available for node in chosen) >= mib
    if any(node.available >= mib and len(node.cpus) >= vcpus for node in nodes):
        assert len(found) == 1
