# SPDX-License-Identifier: GPL-2.0-or-later
"""When a plan may begin where the last one ended, and that it is then the same as one made anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.unit.machines import GIB, guest, machine
from tuned_virt.model.guest import Guest, UserPins
from tuned_virt.model.topology import Host
from tuned_virt.placement import Placement, PlacementPolicy, parse
from tuned_virt.placement.incremental import extend
from tuned_virt.placement.planning_run import PlanningRun

HOST = machine(4)
POLICY = parse({"overcommit": "1"})
A, B = guest("a", 6), guest("b", 6)
NEW = guest("new", 2)
DEDICATED = {"policy": "dedicated"}


def made(
    guests: list[Guest],
    policy: PlacementPolicy | Mapping[str, PlacementPolicy] = POLICY,
    host: Host = HOST,
    current: Mapping[str, Placement] | None = None,
) -> PlanningRun:
    session = PlanningRun(host, policy)
    session.prepare(guests)
    session.place(current or {})
    return session


def in_force(session: PlanningRun) -> dict[str, Placement]:
    return dict(session.result.placements)


def follows(
    before: PlanningRun,
    guests: list[Guest],
    policy: PlacementPolicy | Mapping[str, PlacementPolicy] | None = None,
    host: Host | None = None,
    current: Mapping[str, Placement] | None = None,
) -> bool:
    """Whether it does; what comes of it is then the same as of a plan made anew."""
    now = in_force(before) if current is None else current
    after = PlanningRun(host or before.host, before.policy if policy is None else policy)
    if not extend(before, after, guests, now):
        return False
    fresh = made(guests, after.policy, replace(after.host), now)
    assert after.result.plan() == fresh.result.plan()
    assert after.guests == fresh.guests
    assert {one.guest.key for one in after.wanted} == {one.guest.key for one in fresh.wanted}
    assert after.housekeeping == fresh.housekeeping
    return True


# --- more of the same -----------------------------------------------------------------------------


def test_guests_on_top_and_none() -> None:
    before = made([A, B])
    assert follows(before, [A, B])
    assert follows(before, [A, B, NEW])
    assert follows(before, [NEW, B, A])
    assert follows(before, [A, B, NEW, guest("more", 1, wishes=DEDICATED)])
    assert follows(made([]), [NEW])


def test_the_hardest_of_the_new_ones_first() -> None:
    small, large = guest("s", 1, 1), guest("t", 7, 1, wishes=DEDICATED)
    assert follows(made([A, B]), [A, B, small, large])
    assert follows(made([A, B]), [A, B, guest("s", 2, 1), guest("t", 8, 1)])


def test_guests_that_stayed_where_they_were_are_the_very_same() -> None:
    before = made([A, B])
    after = PlanningRun(HOST, POLICY)
    now = in_force(before)
    assert extend(before, after, [A, B, NEW], now)
    assert after.result.placements["uuid-a"] is now["uuid-a"]
    assert after.result.placements["uuid-new"].nodes == (2,)
    assert "uuid-new" not in before.assignments
    assert before.capacity.nodes[2].load == 0, "what was is left as it was"


def test_again_and_again() -> None:
    session, guests = made([A]), [A]
    for number in range(8):
        guests = [*guests, guest(f"g{number}", 1 + number % 3, 0.5)]
        after = PlanningRun(HOST, POLICY)
        assert extend(session, after, guests, in_force(session))
        fresh = made(guests, host=replace(HOST), current=in_force(session))
        assert after.result.plan() == fresh.result.plan()
        session = after


def test_guests_that_are_not_ours_to_place_stay_that() -> None:
    others = [
        guest("o", 1, owned=UserPins(vcpus={0: frozenset({9})})),
        guest("n", 1, wishes={"policy": "none"}),
        guest("huge", 99),
    ]
    before = made([A, *others])
    assert follows(before, [A, *others, NEW])
    mentioned = {key: one for key, one in in_force(before).items() if one.vcpus}
    assert follows(before, [A, *others, NEW], current=mentioned)
    del mentioned["uuid-o"]
    assert follows(before, [A, *others, NEW], current=mentioned)
    other = replace(in_force(before)["uuid-o"])
    assert follows(before, [A, *others, NEW], current={**in_force(before), "uuid-o": other})


# --- where more has changed -----------------------------------------------------------------------


def test_another_host_or_policy() -> None:
    before = made([A])
    assert not follows(before, [A, NEW], host=replace(HOST))
    assert not follows(before, [A, NEW], policy=parse({"overcommit": "2"}))
    assert follows(before, [A, NEW], policy=parse({"overcommit": "1"})), "an equal one"


def test_policies_by_guest() -> None:
    each = {"uuid-a": PlacementPolicy(), "uuid-new": PlacementPolicy()}
    before = made([A], each)
    assert follows(before, [A, NEW], each)
    assert not follows(before, [A, NEW], {**each, "uuid-a": parse({"overcommit": "2"})})
    assert follows(made([A], {}), [A, NEW], {"uuid-new": POLICY})


def test_guests_that_have_gone_or_changed() -> None:
    before = made([A, B])
    assert not follows(before, [A])
    assert not follows(before, [A, NEW])
    assert not follows(before, [A, NEW, guest("more", 1)])
    assert not follows(before, [A, replace(B), NEW])
    assert not follows(before, [A, A, B]), "one is given twice"


def test_placements_that_are_not_the_last_ones() -> None:
    before = made([A, B])
    now = in_force(before)
    assert not follows(before, [A, B, NEW], current={})
    assert not follows(before, [A, B, NEW], current={"uuid-a": now["uuid-a"]})
    moved = {**now, "uuid-b": replace(now["uuid-b"])}
    assert not follows(before, [A, B, NEW], current=moved)
    placed = {**now, "uuid-new": replace(now["uuid-a"], uuid="uuid-new")}
    assert not follows(before, [A, B, NEW], current=placed), "the new one has its place"


@pytest.mark.parametrize(
    "new",
    [
        guest("new", 1, resident={0: GIB}),
        guest("new", 1, owned=UserPins(emulator=frozenset({3}))),
        guest("new", 1, owned=UserPins(vcpus={0: frozenset({3})})),
        guest("new", 1, wishes={"policy": "none"}),
        guest("new", 1, notes=("odd",)),
        guest("new", 1, wishes={"smt": "odd"}),
    ],
    ids=["it runs", "a pin", "owned", "left alone", "noted", "not valid"],
)
def test_new_guests_that_change_more_than_they_take(new: Guest) -> None:
    assert not follows(made([A]), [A, new])


def test_notes_of_the_host_are_no_news() -> None:
    noted = replace(HOST, notes=("odd",))
    assert follows(made([A], host=noted), [A, NEW])


def test_housekeeping_that_the_new_one_changes() -> None:
    each = {"uuid-a": PlacementPolicy()}
    before = made([A], each)
    other = parse({"housekeeping": "5"})
    assert not follows(before, [A, NEW], {**each, "uuid-new": other})
    named = {"uuid-a": other}
    assert follows(made([A], named), [A, NEW], {**named, "uuid-new": other})


def test_rebalancing_is_made_anew() -> None:
    moving = parse({"rebalance": "1"})
    assert not follows(made([A], moving), [A, NEW])
    each = {"uuid-a": PlacementPolicy()}
    assert not follows(made([A], each), [A, NEW], {**each, "uuid-new": moving})


def test_one_node_is_divided_by_the_first_dedicated_guest() -> None:
    one = machine(1)
    before = made([A], host=one)
    assert follows(before, [A, NEW])
    dedicated = guest("d", 1, wishes=DEDICATED)
    assert not follows(before, [A, dedicated])
    assert follows(made([A, dedicated], host=one), [A, dedicated, guest("e", 1, wishes=DEDICATED)])


def test_a_guest_that_is_left_alone_and_runs_is_counted_anew() -> None:
    runs = guest("runs", 99, resident={0: GIB})
    assert not follows(made([A, runs]), [A, runs, NEW])
    idle = guest("idle", 99)
    assert follows(made([A, idle]), [A, idle, NEW])


# --- what is touched ------------------------------------------------------------------------------


def test_those_on_the_node_that_is_taken_from_change() -> None:
    two = machine(2)
    c, d = guest("c", 5), guest("d", 2)
    before = made([c, d], host=two)
    assert in_force(before)["uuid-c"].nodes == (0,)
    taker = guest("t", 4, wishes=DEDICATED)
    after = PlanningRun(two, POLICY)
    assert extend(before, after, [c, d, taker], in_force(before))
    assert after.result.placements["uuid-t"].nodes == (1,)
    assert after.result.placements["uuid-c"] is in_force(before)["uuid-c"]
    assert after.result.placements["uuid-d"].vcpus != in_force(before)["uuid-d"].vcpus
    assert follows(before, [c, d, taker])


def test_walls_change_with_the_memory_of_their_node() -> None:
    strict = parse({"memory": "strict"})
    wide = guest("w", 1, 9)
    before = made([wide], strict, machine(2))
    assert in_force(before)["uuid-w"].memory == replace(
        in_force(before)["uuid-w"].memory,
        mode="strict",
        nodeset="0-1",  # type: ignore[type-var]
    )
    assert follows(before, [wide, guest("x", 1, 3)])


def test_a_guest_whose_node_has_no_shared_cpus_left_is_looked_at() -> None:
    quiet = replace(machine(2), isolated=frozenset(range(8)))
    d = guest("d", 8, wishes=DEDICATED)
    before = made([d], host=quiet)
    assert in_force(before)["uuid-d"].nodes == (0,)
    assert in_force(before)["uuid-d"].emulator == "8-15"
    near = guest("e", 5, wishes=DEDICATED)
    assert follows(before, [d, near])
