# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that owners and managers left unpinned: they need CPUs too, also dedicated ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.machines import GIB, guest, machine, planned
from tuned_virt.model.guest import Guest, UserPins
from tuned_virt.placement import PlacementKind, Planner, parse, plan, user_pins

TWO = machine(2, cores=8, threads=2, llcs=1, gib=64)
"""CPUs 0-15 and 16-31."""

ALL = frozenset(range(32))
DEDICATED = {"policy": "dedicated"}


def nova(vcpus: int, **more: object) -> Guest:
    """As Nova starts guests without hw:cpu_policy: unpinned, or over all of cpu_shared_set."""
    return guest("instance-1", vcpus, 4, manager="OpenStack Nova", **more)


@pytest.mark.parametrize("sets", [{}, dict.fromkeys(range(8), ALL)], ids=["none", "all CPUs"])
def test_unpinned_vcpus_of_managers_are_load_on_all_nodes(sets: dict[int, frozenset[int]]) -> None:
    found = user_pins.claims(TWO, [nova(8, owned=UserPins(vcpus=sets))])
    assert (found.taken, found.avoided, found.load) == ([0, 0], [0, 0], [4, 4])
    assert user_pins.claims(TWO, [nova(8)], vcpus_per_cpu=4).load == [1, 1]
    assert user_pins.claims(TWO, [nova(8), nova(4)]).load == [6, 6], "they add up"
    isolated = replace(TWO, isolated=frozenset(range(4, 16)))
    uneven = user_pins.claims(isolated, [nova(10)]).load
    assert uneven == [2, 8], "the scheduler puts none on isolated CPUs"


def test_unpinned_vcpus_are_load_where_their_memory_is() -> None:
    there = nova(8, resident={1: 4 * GIB})
    assert user_pins.claims(TWO, [there]).load == [0, 8]
    assert planned(TWO, there, guest("ours", 4))["ours"].nodes == (0,)
    named = nova(8, owned=UserPins(memory="strict", nodes=frozenset({0})))
    assert user_pins.claims(TWO, [named]).load == [8, 0]


def test_of_a_guest_that_its_owner_pinned_in_part_the_others_float() -> None:
    part = guest("mine", 9, owned=UserPins(vcpus={0: frozenset({3})}))
    found = user_pins.claims(TWO, [part])
    assert (found.taken, found.load) == ([0b1000, 0], [4, 4])
    assert user_pins.claims(TWO, [guest("ours", 9)]).load == [0, 0], "is placed by us"


def warnings(*guests: Guest, isolated: frozenset[int] = frozenset()) -> tuple[str, ...]:
    made = plan(replace(TWO, isolated=isolated), guests, parse({}), {})
    return made.warnings


def test_who_can_run_on_cpus_dedicated_to_others_is_said() -> None:
    asks = guest("asks", 4, wishes=DEDICATED)
    said = (
        "not all of their vCPUs are pinned, and these can run on CPUs that are dedicated to"
        " others: instance-1"
    )
    assert warnings(nova(4), asks) == (said,)
    assert warnings(nova(4), guest("floats", 4)) == (), "nothing is dedicated"
    bound = nova(4, owned=UserPins(vcpus=dict.fromkeys(range(4), frozenset(range(16, 32)))))
    assert warnings(bound, asks) == ()
    assert warnings(nova(4), asks, isolated=frozenset(range(8, 16))) == ()
    part = guest("part", 2, owned=UserPins(vcpus={0: frozenset({31})}))
    assert warnings(part, asks) == (said.replace("instance-1", "part"),)


def test_one_more_guest_that_may_overcommit_more_is_planned_as_all_at_once() -> None:
    """So many unpinned vCPUs count as one CPU as guests' policies say, once there are some."""
    planner, policy = Planner(), parse({"overcommit": "4"})
    there = nova(32)
    first = planner.plan(TWO, [there], policy, {})
    assert [one.kind for one in first.placements] == [PlacementKind.OWNER]
    more = [there, guest("a", 8)]
    made = planner.plan(TWO, more, policy, {})
    assert made == plan(TWO, more, policy, {})
    assert made.placements[0].kind is PlacementKind.SHARED
