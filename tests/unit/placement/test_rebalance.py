# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guest moves to a better place, and that none does without one."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.machines import GIB, guest, machine, planned
from tuned_virt.model.guest import UserPins
from tuned_virt.placement import (
    Placement,
    PlacementKind,
    parse,
    plan,
)

SINGLE = machine(1, cores=8, threads=1, llcs=1)
DEDICATED = {"policy": "dedicated"}


def in_force(
    kind: PlacementKind, vcpus: dict[int, str], *nodes: int, why: str = "it was so"
) -> Placement:
    return Placement("a", "uuid-a", kind, nodes or (0,), vcpus, "0-1", {}, None, why)


def test_only_who_gains_moves() -> None:
    """Near its device, whole, and dedicated as it asks."""
    host = replace(machine(4), devices={"d": 2})
    there = in_force(PlacementKind.SHARED, {0: "16-23"}, 2)
    near = guest("a", 1, devices=("d",))
    stays = planned(host, near, current=[there], rebalance="3")["a"]
    assert (stays.nodes, stays.why) == ((2,), "it was so")
    far = in_force(PlacementKind.SHARED, {0: "0-7"}, 0)
    moved = planned(host, near, current=[far], rebalance="3")["a"]
    assert moved.nodes == (2,)
    assert moved.why.startswith("moved to a better place: node 2 rather than node 3: ")
    rooted = replace(near, resident={0: GIB})
    assert planned(host, rooted, current=[far], rebalance="3")["a"].nodes == (0,)


def test_who_gains_most_moves_first() -> None:
    """Split is worse than far; of equal gains the first by UUID."""
    host = replace(machine(4), devices={"d": 0})
    far = in_force(PlacementKind.SHARED, {0: "24-31"}, 3)
    split = replace(
        in_force(PlacementKind.SHARED, {0: "0-7", 1: "16-23"}, 0, 2), guest="b", uuid="uuid-b"
    )
    guests = [guest("a", 1, devices=("d",)), guest("b", 2)]
    for moves, moved in ((0, ""), (1, "b"), (2, "ab"), (9, "ab")):
        made = planned(host, *guests, current=[split, far], rebalance=str(moves))
        assert "".join(n for n, one in made.items() if one.why.startswith("moved")) == moved
    near = replace(far, nodes=(1,), vcpus={0: "8-15"}, guest="c", uuid="uuid-c")
    farther = [*guests, guest("c", 1, devices=("d",))]
    made = planned(host, *farther, current=[split, far, near], rebalance="2")
    assert "".join(n for n, one in made.items() if one.why.startswith("moved")) == "ab"


def test_where_there_is_nothing_better_all_stays_as_it_was() -> None:
    split = in_force(PlacementKind.SHARED, {0: "0-7", 1: "8-15"}, 0, 1)
    full = [
        replace(
            in_force(PlacementKind.SHARED, dict.fromkeys(range(7), cpus)),
            guest=name,
            uuid=f"uuid-{name}",
        )
        for name, cpus in (("b", "0-7"), ("c", "8-15"))
    ]
    guests = [guest("a", 2), guest("b", 7), guest("c", 7)]
    made = planned(machine(), *guests, current=[split, *full], rebalance="5")
    assert (made["a"].nodes, made["a"].why) == ((0, 1), "it was so")
    assert {made[name].why for name in "bc"} == {"it was so"}


def test_a_guest_that_floats_though_it_asks_for_cpus_moves_to_some() -> None:
    full = guest("o", 7, owned=UserPins(vcpus={n: frozenset({n + 1}) for n in range(7)}))
    held = in_force(PlacementKind.SHARED, {0: "0"}, 0)
    asks = guest("a", 1, wishes=DEDICATED)
    stays = planned(machine(), asks, full, current=[held])["a"]
    assert (stays.kind, stays.nodes) == (PlacementKind.SHARED, (0,))
    moved = planned(machine(), asks, full, current=[held], rebalance="1")["a"]
    assert (moved.kind, moved.nodes) == (PlacementKind.DEDICATED, (1,))


def test_a_guest_moves_only_where_its_own_policy_says_so() -> None:
    host = replace(machine(4), devices={"d": 2})
    far = in_force(PlacementKind.SHARED, {0: "0-7"}, 0)
    other = replace(far, guest="b", uuid="uuid-b")
    guests = [guest("a", 1, devices=("d",)), guest("b", 1, devices=("d",))]
    policies = {"uuid-a": parse({}), "uuid-b": parse({"rebalance": "2"})}
    made = plan(host, guests, policies, {"uuid-a": far, "uuid-b": other})
    assert [(one.guest, one.nodes) for one in made.placements] == [("a", (0,)), ("b", (2,))]


def test_memory_that_cannot_move_stays_where_it_is_even_near_the_device() -> None:
    """Some of it is on the device's node already."""
    host = replace(machine(4), devices={"d": 2})
    far = in_force(PlacementKind.SHARED, {0: "0-7"}, 0)
    rooted = guest("a", 1, devices=("d",), resident={0: GIB, 2: GIB})
    assert planned(host, rooted, current=[far], rebalance="1")["a"].nodes == (0,)


def test_what_a_guest_leaves_that_had_grown_is_free() -> None:
    """Its first CPU as well as the one for its new vCPU."""
    host = replace(machine(2), devices={"d": 1})
    held = in_force(PlacementKind.DEDICATED, {0: "4"}, 0)
    near = guest("a", 2, devices=("d",), wishes=DEDICATED)
    owner = guest("f", 1, owned=UserPins(nodes=frozenset({0})))
    made = planned(host, near, owner, current=[held], rebalance="1")
    assert made["a"].nodes == (1,)
    assert made["f"].vcpus == {0: "0-7"}
