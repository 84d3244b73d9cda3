# SPDX-License-Identifier: GPL-2.0-or-later
"""Placements in force: what is kept, what no longer holds, and plans that only add guests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.machines import GIB, cpus_of, guest, machine, planned
from tuned_virt.model.guest import Cell, Guest, HugePages, UserPins
from tuned_virt.model.topology import Host
from tuned_virt.placement import (
    MemoryPlacement,
    Placement,
    PlacementKind,
    PlacementPolicy,
    Planner,
    parse,
    plan,
)
from tuned_virt.placement.assignment import Assignment
from tuned_virt.placement.demand import demand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.node_capacity import NodeCapacity, NodeMemory
from tuned_virt.placement.retain import retain

SINGLE = machine(1, cores=8, threads=1, llcs=1)
DEDICATED = {"policy": "dedicated"}


def in_force(
    kind: PlacementKind, vcpus: dict[int, str], *nodes: int, why: str = "it was so"
) -> Placement:
    return Placement("a", "uuid-a", kind, nodes or (0,), vcpus, "0-1", {}, None, why)


# --- smt ------------------------------------------------------------------------------------------


def test_cpus_without_smt_are_not_kept_where_it_is_required() -> None:
    before = planned(SINGLE, guest("a", 2), policy="dedicated")
    assert before["a"].kind is PlacementKind.DEDICATED
    after = planned(
        SINGLE, guest("a", 2), current=before.values(), policy="dedicated", smt="require"
    )
    assert after["a"].kind is PlacementKind.SHARED


def test_two_vcpus_on_one_core_are_not_kept_where_each_is_to_have_its_own() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "4", 1: "5"})
    options = {"policy": "dedicated", "smt": "isolate"}
    after = planned(machine(1), guest("a", 2), current=[held], **options)["a"]
    assert cpus_of(after) == ["4", "6"]
    apart = in_force(PlacementKind.DEDICATED, {0: "2", 1: "7"})
    kept = planned(machine(1), guest("a", 2), current=[apart], **options)["a"]
    assert cpus_of(kept) == ["2", "7"]


@pytest.mark.parametrize(
    ("smt", "floats"), [("isolate", "0-3"), ("require", "0-3"), ("prefer", "")]
)
def test_what_smt_keeps_idle_of_a_kept_core_stays_idle(smt: str, floats: str) -> None:
    vcpus = {0: "4", 1: "6"} if smt == "isolate" else {0: "4", 1: "5", 2: "6"}
    wants = guest("a", len(vcpus))
    other = guest("f", 1, wishes={"policy": "node"})
    held = in_force(PlacementKind.DEDICATED, vcpus)
    made = planned(machine(1), wants, other, current=[held], policy="dedicated", smt=smt)
    assert made["a"].vcpus == vcpus
    assert set(cpus_of(made["f"])) == {floats or "0-3,7"}


# --- what no longer holds -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vcpus",
    [{0: "4", 1: "99"}, {0: "4", 1: "4"}, {0: "4-5", 1: "6"}, {0: "0", 1: "4"}],
    ids=["a CPU that is gone", "one CPU for two", "no single CPU", "one kept for housekeeping"],
)
def test_dedicated_cpus_that_do_not_hold_are_chosen_anew(vcpus: dict[int, str]) -> None:
    made = planned(
        machine(1), guest("a", 2), current=[in_force(PlacementKind.DEDICATED, vcpus)], **DEDICATED
    )
    assert cpus_of(made["a"]) == ["4", "5"] or cpus_of(made["a"]) == ["2", "3"]
    assert made["a"].why != "it was so"


def test_what_holds_keeps_its_reason() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "7", 1: "2"})
    made = planned(machine(1), guest("a", 2), current=[held], **DEDICATED)
    assert (cpus_of(made["a"]), made["a"].why) == (["7", "2"], "it was so")


def test_a_guest_that_is_dedicated_no_longer_floats() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "4", 1: "5"})
    made = planned(machine(), guest("a", 2), current=[held])["a"]
    assert (made.kind, cpus_of(made)) == (PlacementKind.SHARED, ["0-7", "0-7"])


def test_one_that_floated_for_lack_of_cpus_gets_them_once_there_are_some() -> None:
    held = in_force(PlacementKind.SHARED, {0: "8-15", 1: "8-15"}, 1)
    made = planned(machine(), guest("a", 2), current=[held], **DEDICATED)["a"]
    assert (made.kind, made.nodes) == (PlacementKind.DEDICATED, (1,))
    assert made.why == "node 1: it now has CPUs that can be dedicated"
    full = replace(guest("b", 6), wishes=DEDICATED)
    crowded = in_force(PlacementKind.SHARED, {0: "0-1", 1: "0-1"}, 0)
    beside = planned(machine(1), replace(guest("a", 2), wishes=DEDICATED), full, current=[crowded])
    assert (beside["a"].kind, beside["b"].kind) == (PlacementKind.DEDICATED, PlacementKind.SHARED)


def test_one_on_two_nodes_is_not_promoted() -> None:
    held = in_force(PlacementKind.SHARED, {0: "0-7", 1: "8-15"}, 0, 1)
    made = planned(machine(), guest("a", 2), current=[held], **DEDICATED)["a"]
    assert (made.kind, made.nodes) == (PlacementKind.SHARED, (0, 1))


def test_a_floating_guest_stays_where_the_first_cpu_that_is_online_is() -> None:
    held = in_force(PlacementKind.SHARED, {0: "99,12-15", 1: "14"}, 1)
    made = planned(machine(), guest("a", 2), current=[held])["a"]
    assert (made.nodes, cpus_of(made), made.why) == ((1,), ["8-15", "8-15"], "it was so")
    gone = in_force(PlacementKind.SHARED, {0: "8-15", 1: "98-99"}, 1)
    assert planned(machine(), guest("a", 2), current=[gone])["a"].nodes == (0,)


def test_no_more_is_kept_on_a_node_than_it_takes() -> None:
    held = in_force(PlacementKind.SHARED, dict.fromkeys(range(6), "8-15"), 1)
    other = replace(held, guest="b", uuid="uuid-b")
    made = planned(machine(), guest("a", 6), guest("b", 6), current=[held, other])
    assert (made["a"].nodes, made["b"].nodes) == ((1,), (0,))


def test_memory_that_spanned_more_nodes_still_does() -> None:
    small = machine(2, gib=2)
    first = planned(small, guest("a", 1, 3))["a"]
    assert first.memory is not None
    assert first.memory.nodeset == "0-1"
    kept = planned(small, guest("a", 1, 3), current=[first])["a"]
    assert kept == first
    odd = replace(first, memory=replace(first.memory, nodeset="junk"))
    made = planned(small, guest("a", 1, 1), current=[odd])["a"]
    assert made.memory is not None
    assert made.memory.nodeset == "0"


def test_new_vcpus_join_where_most_of_the_others_are() -> None:
    held = in_force(PlacementKind.SHARED, {0: "0-7", 1: "8-15", 2: "8-15"}, 0, 1)
    made = planned(machine(), guest("a", 4), current=[held])["a"]
    assert cpus_of(made) == ["0-7", "8-15", "8-15", "8-15"]
    even = in_force(PlacementKind.SHARED, {0: "0-7", 1: "8-15"}, 0, 1)
    assert cpus_of(planned(machine(), guest("a", 3), current=[even])["a"])[2] == "0-7"


def test_new_vcpus_of_a_dedicated_guest_on_two_nodes_place_it_anew() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "4", 1: "12"}, 0, 1)
    made = planned(machine(), guest("a", 2), current=[held], **DEDICATED)["a"]
    assert (made.nodes, cpus_of(made)) == ((0, 1), ["4", "12"])
    grown = planned(machine(), guest("a", 3), current=[held], **DEDICATED)["a"]
    assert grown.nodes == (0,)


def test_its_memory_is_counted_once_when_vcpus_are_added() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "4", 1: "5"})
    made = planned(
        machine(1, gib=8), guest("a", 3, 5), guest("b", 1, 3, wishes={"policy": "node"}),
        current=[held], **DEDICATED,
    )  # fmt: skip
    assert (made["a"].kind, made["b"].kind) == (PlacementKind.DEDICATED, PlacementKind.SHARED)
    assert cpus_of(made["a"])[:2] == ["4", "5"]


# --- plans that only add --------------------------------------------------------------------------


class Growing:
    """A host on which guests are started one by one, each plan beginning where the last ended."""

    def __init__(self, host: Host, **options: str) -> None:
        self.host = host
        self.policy: PlacementPolicy = parse({"overcommit": "1", **options})
        self.planner = Planner()
        self.guests: list[Guest] = []
        self.now: dict[str, Placement] = {}
        self.warnings: tuple[str, ...] = ()

    def add(self, *new: Guest) -> dict[str, Placement]:
        self.guests += new
        made = self.planner.plan(self.host, self.guests, self.policy, self.now)
        fresh = plan(replace(self.host), self.guests, self.policy, self.now)
        assert made == fresh, "the same as without the memory of the last plan"
        self.now = {one.uuid: one for one in made.placements}
        self.warnings = made.warnings
        return {one.guest: one for one in made.placements}


def test_iothreads_follow_what_a_new_guest_takes_from_their_node() -> None:
    growing = Growing(replace(machine(), disks={"sda": 0}))
    first = growing.add(guest("a", 6, iothreads={1: ("sda",)}), guest("d", 1, wishes=DEDICATED))
    assert (first["a"].nodes, first["d"].vcpus) == ((1,), {0: "2"})
    assert first["a"].iothreads == {1: "0-1,3-7"}
    more = growing.add(guest("b", 3, wishes=DEDICATED))
    assert more["b"].nodes == (0,)
    assert more["a"].nodes == (1,)
    assert more["a"].iothreads == {1: more["d"].emulator}
    assert more["a"].iothreads != first["a"].iothreads


def test_walls_fall_where_a_new_guest_takes_the_margin() -> None:
    growing = Growing(machine(1, gib=8), memory="strict")
    first = growing.add(guest("a", 1, 4))["a"]
    assert first.memory is not None
    assert first.memory.mode == "strict"
    more = growing.add(guest("b", 1, 3.8))
    assert {one.memory.mode for one in more.values() if one.memory} == {"move"}


def test_walls_of_guests_elsewhere_fall_where_a_new_guest_takes_the_margin_of_their_memory() -> (
    None
):
    """Its vCPUs are on node 0, its memory on both."""
    growing = Growing(machine(2, gib=2), memory="strict")
    first = growing.add(guest("a", 1, 3))["a"]
    assert first.memory == MemoryPlacement("strict", "0-1")
    more = growing.add(guest("b", 1, 0.3))
    assert (more["a"].nodes, more["b"].nodes) == ((0,), (1,))
    assert more["a"].memory == MemoryPlacement("move", "0-1")


def test_walls_fall_of_guests_on_a_node_without_memory_too() -> None:
    """Node 1 has none: theirs is on node 0."""
    base = machine(2, gib=2)
    growing = Growing(
        replace(base, nodes=(base.nodes[0], replace(base.nodes[1], memory=0))), memory="strict"
    )
    growing.add(guest("a", 7, 0.6))
    first = growing.add(guest("b", 2, 0.6))["b"]
    assert (first.nodes, first.memory) == ((1,), MemoryPlacement("strict", "0"))
    more = growing.add(guest("c", 1, 0.6))
    assert more["c"].nodes == (0,)
    assert more["b"].memory == MemoryPlacement("move", "0")


def test_a_warning_of_the_last_plan_is_said_again() -> None:
    growing = Growing(machine(1), housekeeping="0,99")
    growing.add(guest("a", 1), guest("d", 1, wishes=DEDICATED))
    growing.add(guest("b", 1, wishes=DEDICATED))
    assert growing.warnings == ("housekeeping: these CPUs are not online here: 99",)


@pytest.mark.parametrize("policy", ["node", "dedicated"])
@pytest.mark.parametrize("overcommit", ["1", "auto"])
def test_guests_one_by_one_are_placed_as_all_at_once_are_kept(policy: str, overcommit: str) -> None:
    growing = Growing(machine(4), policy=policy, overcommit=overcommit)
    for number in range(14):
        made = growing.add(guest(f"g{number:02}", 1 + number % 4, 0.5))
    assert len(made) == 14
    if (policy, overcommit) != ("node", "auto"):
        assert {one.kind for one in made.values()} > {PlacementKind.SHARED}


# --- walls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gib", "wall"), [(1.74, True), (1.76, False), (1.85, False)])
def test_a_wall_leaves_256_mib_of_a_small_node(gib: float, wall: bool) -> None:
    """5 % of its 2 GiB would be 102 MiB."""
    one = planned(machine(1, gib=2), guest("a", 1, gib), memory="restrictive")["a"]
    assert one.memory is not None
    assert one.memory.mode == ("restrictive" if wall else "move")


def test_half_a_gib_is_left_to_what_may_be_plugged_in() -> None:
    grows = replace(guest("a", 1, 2), max_memory=7 * GIB)
    one = planned(machine(1), grows, guest("b", 1, 0.5), memory="strict")
    assert {made.memory.mode for made in one.values() if made.memory} == {"strict"}
    more = planned(machine(1), grows, guest("b", 1, 0.7), memory="strict")
    assert {made.memory.mode for made in more.values() if made.memory} == {"move"}


# --- edges ----------------------------------------------------------------------------------------


def test_cpus_that_floating_guests_need_by_now_are_not_kept_dedicated() -> None:
    """Of 8 CPUs two are dedicated, so six float."""
    held = in_force(PlacementKind.DEDICATED, {0: "4", 1: "5"})
    floats = replace(
        in_force(PlacementKind.SHARED, dict.fromkeys(range(6), "0-3,6-7")), guest="f", uuid="uuid-f"
    )
    six = guest("f", 6, wishes={"policy": "node"})
    both = planned(machine(1), guest("a", 2), six, current=[held, floats], **DEDICATED)
    assert (cpus_of(both["a"]), both["a"].why) == (["4", "5"], "it was so")
    assert both["f"].kind is PlacementKind.SHARED
    three = in_force(PlacementKind.DEDICATED, {0: "4", 1: "5", 2: "6"})
    more = planned(machine(1), guest("a", 3), six, current=[three, floats], **DEDICATED)
    assert cpus_of(more["a"]) == ["4", "5", "6"]
    assert more["f"].kind is PlacementKind.UNPLACED, "dedicated ones are kept first"


def test_isolated_cpus_are_kept_whatever_floats() -> None:
    host = replace(machine(1), isolated=frozenset({4, 5, 6, 7}))
    held = in_force(PlacementKind.DEDICATED, dict(zip(range(4), "4567")))
    four = guest("f", 4, owned=UserPins(vcpus=dict.fromkeys(range(4), frozenset({0, 1, 2, 3}))))
    made = planned(host, guest("a", 4), four, current=[held], **DEDICATED)
    assert (cpus_of(made["a"]), made["a"].why) == (["4", "5", "6", "7"], "it was so")


def test_cpus_that_an_owner_has_taken_since_are_not_kept() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "4", 1: "5"})
    for owned in (UserPins(vcpus={0: frozenset({5})}), UserPins(vcpus={0: frozenset({5, 0})})):
        made = planned(
            machine(1), guest("a", 2), guest("o", 1, owned=owned), current=[held], **DEDICATED
        )
        assert cpus_of(made["a"]) == ["2", "3"]


def test_a_core_of_one_thread_breaks_what_is_required_of_all() -> None:
    """CPUs 4 and 5 have no siblings here."""
    base = machine(1)
    alone = {cpu: replace(base.cpus[cpu], siblings=frozenset({cpu})) for cpu in (4, 5)}
    host = replace(base, cpus={**base.cpus, **alone}, offline=frozenset({99}))
    held = in_force(PlacementKind.DEDICATED, {0: "2", 1: "3", 2: "4"})
    required = planned(host, guest("a", 3), current=[held], policy="dedicated", smt="require")["a"]
    assert required.why != "it was so"
    isolated = planned(host, guest("a", 1), current=[in_force(PlacementKind.DEDICATED, {0: "4"})],
                       policy="dedicated", smt="isolate")["a"]  # fmt: skip
    assert (cpus_of(isolated), isolated.why) == (["4"], "it was so")


def test_vcpus_that_are_offline_by_now_give_their_cpus_back() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "4", 1: "5", 2: "6"})
    made = planned(machine(1), replace(guest("a", 3), online=(0, 2)), current=[held], **DEDICATED)[
        "a"
    ]
    assert made.vcpus == {0: "4", 2: "6"}
    assert made.emulator == "0-3,5,7"


def test_a_guest_of_which_no_vcpu_was_placed_is_placed() -> None:
    for kind in (PlacementKind.DEDICATED, PlacementKind.SHARED):
        held = in_force(kind, {9: "4"})
        made = planned(machine(1), guest("a", 1), current=[held], **DEDICATED)["a"]
        assert made.kind is PlacementKind.DEDICATED
        assert made.why == "node 0: the only node"


def test_new_vcpus_take_as_many_cpus_as_there_are_and_no_more() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "2", 1: "3"})
    made = planned(machine(1), guest("a", 6), current=[held], **DEDICATED)["a"]
    assert sorted(cpus_of(made)) == ["2", "3", "4", "5", "6", "7"]
    assert (made.vcpus[0], made.why, made.emulator) == ("2", "it was so", "0-1")
    assert list(made.vcpus) == list(range(6))
    full = planned(machine(1), guest("a", 7), current=[held], **DEDICATED)["a"]
    assert full.kind is PlacementKind.SHARED


def test_what_a_grown_guest_has_is_taken_once_it_is_moved_again() -> None:
    """A second plan on top sees its CPUs as taken."""
    held = in_force(PlacementKind.DEDICATED, {0: "2", 1: "3"})
    grown = guest("a", 4)
    other = guest("f", 1, wishes={"policy": "node"})
    made = planned(machine(1), grown, other, current=[held], **DEDICATED)
    assert cpus_of(made["a"]) == ["2", "3", "4", "5"]
    assert cpus_of(made["f"]) == ["0-1,6-7"]


def test_huge_pages_of_a_guest_that_grows_are_counted_once() -> None:
    base = machine(1)
    host = replace(base, nodes=(replace(base.nodes[0], free_pages={2048: 640}),))
    held = in_force(PlacementKind.DEDICATED, {0: "4"})
    pages = (HugePages(2048),)
    for gib, kind in ((0.25, PlacementKind.DEDICATED), (0.26, PlacementKind.UNPLACED)):
        guests = (guest("a", 2, huge_pages=pages), guest("b", 1, gib, huge_pages=pages))
        made = planned(host, *guests, current=[held], **DEDICATED)
        assert cpus_of(made["a"]) == ["4", "2"]
        assert made["b"].kind is kind


def test_promotion_needs_cpus_for_all_and_keeps_the_memory() -> None:
    six = in_force(PlacementKind.SHARED, dict.fromkeys(range(6), "0-7"))
    made = planned(machine(1), guest("a", 6), current=[six], **DEDICATED)["a"]
    assert (made.kind, sorted(cpus_of(made))) == (
        PlacementKind.DEDICATED,
        ["2", "3", "4", "5", "6", "7"],
    )
    seven = in_force(PlacementKind.SHARED, dict.fromkeys(range(7), "0-7"))
    stays = planned(machine(1), guest("a", 7), current=[seven], **DEDICATED)["a"]
    assert (stays.kind, stays.why) == (PlacementKind.SHARED, "it was so")
    wide = replace(
        in_force(PlacementKind.SHARED, {0: "0-7"}),
        memory=MemoryPlacement("move", "0-1"),
        why="its memory is wide",
    )
    moved = planned(machine(2, gib=2), guest("a", 1, 3), current=[wide], **DEDICATED)["a"]
    assert moved.kind is PlacementKind.DEDICATED
    assert moved.memory is not None
    assert moved.memory.nodeset == "0-1"


def test_memory_of_other_nodes_than_the_seats_is_not_kept() -> None:
    held = replace(in_force(PlacementKind.SHARED, {0: "0-7"}), memory=MemoryPlacement("move", "1"))
    made = planned(machine(), guest("a", 1), current=[held])["a"]
    assert made.memory is not None
    assert (made.nodes, made.memory.nodeset) == ((0,), "0")
    gone = replace(held, memory=MemoryPlacement("move", "0,9"))
    known = planned(machine(), guest("a", 1), current=[gone])["a"]
    assert known.memory is not None
    assert known.memory.nodeset == "0"
    for kind, cpus in ((PlacementKind.DEDICATED, "4"), (PlacementKind.SHARED, "0-7")):
        wide = replace(in_force(kind, {0: cpus}), memory=MemoryPlacement("move", "0-1"))
        options = DEDICATED if kind is PlacementKind.DEDICATED else {}
        kept = planned(machine(), guest("a", 1), current=[wide], **options)["a"]
        assert kept.memory is not None
        assert kept.memory.nodeset == "0-1"


def test_who_grows_is_kept_last() -> None:
    """It takes no CPU that another has."""
    small = in_force(PlacementKind.DEDICATED, {0: "4"})
    other = replace(in_force(PlacementKind.DEDICATED, {0: "5"}), guest="b", uuid="uuid-b")
    made = planned(machine(1), guest("a", 2), guest("b", 1), current=[small, other], **DEDICATED)
    assert cpus_of(made["b"]) == ["5"]
    assert made["a"].vcpus[0] == "4"
    assert made["a"].vcpus[1] != "5"


# --- assignments ----------------------------------------------------------------------------------


def kept(host: Host, one: Guest, now: Placement, **options: str) -> Assignment | None:
    capacity = HostCapacity(
        host, [NodeCapacity(node, 0, 0, 0) for node in host.grid.nodes], NodeMemory(host)
    )
    return retain(capacity, demand(one, parse(options), host.huge_page), now)


def test_all_vcpus_of_a_dedicated_guest_stay_on_their_nodes() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "4", 1: "5", 2: "12"}, 0, 1)
    found = kept(machine(), guest("a", 3), held, **DEDICATED)
    assert found is not None
    assert found.vcpus_by_node == {0: (0, 1), 1: (2,)}


def test_memory_on_the_nodes_of_the_vcpus_is_with_them() -> None:
    """Three vCPUs on node 0 and one on node 1 use memory as they are, not half and half."""
    vcpus = {0: "0-7", 1: "0-7", 2: "0-7", 3: "8-15"}
    held = replace(
        in_force(PlacementKind.SHARED, vcpus, 0, 1), memory=MemoryPlacement("move", "0-1")
    )
    found = kept(machine(), guest("a", 4, 4), held)
    assert found is not None
    assert [(share.node, share.memory) for share in found.shares] == [(0, 3 * GIB), (1, GIB)]


def test_vcpus_after_a_new_one_stay_where_they_are() -> None:
    held = in_force(PlacementKind.SHARED, {0: "0-7", 2: "8-15", 3: "8-15"}, 0, 1)
    assert cpus_of(planned(machine(), guest("a", 4), current=[held])["a"]) == [
        "0-7", "8-15", "8-15", "8-15",
    ]  # fmt: skip


def test_the_first_cpu_of_a_node_is_kept_as_any_other() -> None:
    held = in_force(PlacementKind.DEDICATED, {0: "0"})
    made = planned(
        machine(1), guest("a", 1), current=[held], policy="dedicated", housekeeping="6-7"
    )["a"]
    assert (made.vcpus, made.why) == ({0: "0"}, "it was so")


@pytest.mark.parametrize(("vcpus", "kept"), [(4, True), (5, False)])
def test_cpus_that_owners_need_by_now_are_not_kept_dedicated(vcpus: int, kept: bool) -> None:
    """They float over CPUs 0 to 3; four others are dedicated."""
    owner = guest(
        "o", vcpus, owned=UserPins(vcpus=dict.fromkeys(range(vcpus), frozenset(range(4))))
    )
    held = in_force(PlacementKind.DEDICATED, dict(zip(range(4), "4567")))
    made = planned(machine(2), guest("a", 4), owner, current=[held], **DEDICATED)["a"]
    assert (made.why == "it was so") is kept


@pytest.mark.parametrize("policy", ["node", "dedicated"])
def test_a_plugged_vcpu_comes_beside_its_cell_where_memory_does_not_say(policy: str) -> None:
    """The fullest node is that of the other cell, and has room as well."""
    cells = (Cell(0, frozenset(range(6)), GIB), Cell(1, frozenset(range(6, 12)), GIB))
    wants = replace(guest("a", 12, 2, cells=cells), online=tuple(range(9)))
    before = planned(machine(2), wants, policy=policy, memory="none")["a"]
    more = replace(wants, online=tuple(range(10)))
    after = planned(machine(2), more, current=[before], policy=policy, memory="none")["a"]
    assert {vcpu: after.vcpus[vcpu] for vcpu in range(9)} == before.vcpus
    node = {cpu: node.id for node in machine(2).nodes for cpu in node.cpus}
    assert [node[int(after.vcpus[vcpu].split("-")[0])] for vcpu in (5, 8, 9)] == [0, 1, 1]


def test_a_guest_that_floats_over_all_that_is_left_stays_so_where_that_is_one_node() -> None:
    """Node 0 is dedicated; on node 1 an owner has CPU 3, which is for all that nobody confines."""
    host = machine(2, 2, 1, llcs=1)
    owner = guest("o", 1, owned=UserPins(vcpus={0: frozenset({3})}))
    own = guest("own", 2, 0.5, wishes=DEDICATED)
    guests = [owner, own, guest("a", 1, 0.5), guest("b", 1, 0.5)]
    for memory in ("move", "none"):
        auto: dict[str, Any] = {"overcommit": "auto", "housekeeping": "2", "memory": memory}
        made = planned(host, *guests, **auto)
        assert [cpus_of(made[name]) for name in ("own", "a", "b")] == [["0", "1"], ["2"], ["2-3"]]
        assert made["b"].memory is None
        ours = [one for one in made.values() if one.kind is not PlacementKind.OWNER]
        assert planned(host, *guests, current=ours, **auto) == made


def test_an_isolated_cpu_is_kept_though_owners_need_more_than_the_others() -> None:
    """It takes nothing from them."""
    host = replace(machine(1, 4, 1, llcs=1), isolated=frozenset({2, 3}))
    owner = guest("o", 4, owned=UserPins(vcpus={0: frozenset({0}), 1: frozenset({0, 1})}))
    held = in_force(PlacementKind.DEDICATED, {0: "3"})
    for overcommit in ("1", "auto"):
        options = {**DEDICATED, "overcommit": overcommit}
        made = planned(host, owner, guest("a", 1), current=[held], **options)["a"]
        assert (made.kind, made.vcpus, made.why) == (held.kind, {0: "3"}, held.why)
