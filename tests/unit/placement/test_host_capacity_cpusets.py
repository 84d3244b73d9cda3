# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests are offered only CPUs that the cpuset of their control group has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.machines import cpus_of, guest, machine, planned
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.placement import PlacementKind, Planner, parse, plan
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.node_capacity import NodeCapacity, NodeMemory

TWO = machine(2, cores=8, threads=2, llcs=1, gib=64)
"""CPUs 0-15 and 16-31."""

SLICE = replace(TWO, cpusets={"/machine": frozenset(range(8, 24))})
"""https://github.com/spheenik/vfio-isolate/issues/6: AllowedCPUs=8-23 of machine.slice."""

RT = replace(
    TWO,
    cpusets={"/machine/rt": frozenset(range(8, 16)), "/machine/nort": frozenset({0, 1, 2, 3})},
)
"""https://github.com/seapath/ansible/issues/439: slices of their own for guests."""


def used(*texts: str) -> frozenset[int]:
    return frozenset[int]().union(*map(cpuset.parse, texts))


@pytest.mark.parametrize("mode", ["node", "dedicated"])
@pytest.mark.parametrize("emulator", ["node", "housekeeping"])
def test_all_threads_of_a_guest_are_within_machine_slice(mode: str, emulator: str) -> None:
    wants = [guest(name, 4, iothreads={1: ()}) for name in "abc"]
    made = planned(SLICE, *wants, policy=mode, emulator=emulator)
    for one in made.values():
        cpus = used(*cpus_of(one), one.emulator, *one.iothreads.values())
        assert one.kind is not PlacementKind.UNPLACED
        assert cpus <= set(range(8, 24)), one
    assert planned(SLICE, *wants, current=made.values(), policy=mode, emulator=emulator) == made


def test_what_a_cpuset_leaves_is_said() -> None:
    made = plan(SLICE, [guest("a", 2)], parse({}), {})
    assert made.warnings == (
        "the cpuset of control group /machine leaves its guests CPUs 8-23: they are placed on"
        " these alone",
    )
    assert plan(TWO, [guest("a", 2)], parse({}), {}).warnings == ()
    assert plan(SLICE, [guest("a", 2, partition="/other")], parse({}), {}).warnings == ()
    wide = planned(SLICE, guest("a", 9), policy="dedicated")["a"]
    assert "it needs 9 CPUs that can be dedicated; node 0 has the most (8)" in wide.why


def test_the_load_of_a_cpuset_is_that_of_its_guests() -> None:
    """8 of node 0's CPUs and 8 of node 1's: 16 vCPUs and no more."""
    crowd = [guest(f"g{number}", 4) for number in range(5)]
    made = planned(SLICE, *crowd, overcommit="1")
    kinds = [one.kind for one in made.values()]
    assert kinds.count(PlacementKind.SHARED) == 4
    other = planned(SLICE, *crowd, guest("free", 8, partition="/other"), overcommit="1")["free"]
    assert (other.kind, used(*cpus_of(other))) in (
        (PlacementKind.SHARED, frozenset(range(16))),
        (PlacementKind.SHARED, frozenset(range(16, 32))),
    )


def test_guests_of_different_slices_are_each_in_their_own() -> None:
    in_rt = guest("rt", 6, partition="/machine/rt", wishes={"policy": "dedicated"})
    in_nort = guest("nort", 4, partition="/machine/nort")
    made = planned(RT, in_rt, in_nort, guest("any", 4))
    assert (made["rt"].kind, used(*cpus_of(made["rt"])) <= set(range(8, 16))) == (
        PlacementKind.DEDICATED,
        True,
    )
    assert used(*cpus_of(made["nort"])) == {0, 1, 2, 3}
    assert made["any"].nodes == (1,)
    more = planned(RT, in_rt, replace(in_rt, name="rt2", uuid="uuid-rt2"))
    assert [more[name].kind for name in ("rt", "rt2")] == [
        PlacementKind.DEDICATED, PlacementKind.UNPLACED,
    ]  # fmt: skip


def test_a_placement_outside_a_cpuset_that_came_since_is_not_kept() -> None:
    wants = guest("a", 4)
    for mode in ("node", "dedicated"):
        before = planned(replace(TWO, cpusets={}), wants, policy=mode)["a"]
        host = replace(TWO, cpusets={"/machine": frozenset(range(16, 32))})
        after = planned(host, wants, current=[before], policy=mode)["a"]
        assert (before.nodes, after.nodes) == ((0,), (1,))


def test_a_vcpu_that_is_plugged_in_stays_within_it() -> None:
    wants = replace(guest("a", 8), online=(0, 1, 2, 3))
    made = planned(SLICE, wants, policy="dedicated")["a"]
    grown = planned(
        SLICE, replace(wants, online=tuple(range(8))), current=[made], policy="dedicated"
    )
    assert used(*cpus_of(grown["a"])) <= set(range(8, 24))
    assert len(used(*cpus_of(grown["a"]))) == 8


def test_one_more_guest_is_planned_as_all_at_once() -> None:
    planner, policy = Planner(), parse({"overcommit": "4"})
    some: list[Guest] = [guest("a", 4), guest("b", 4)]
    first = planner.plan(SLICE, some, policy, {})
    more = [*some, guest("c", 4)]
    current = {one.uuid: one for one in first.placements}
    assert planner.plan(SLICE, more, policy, current) == plan(SLICE, more, policy, current)
    other = [*more, guest("d", 4, partition="/machine/rt")]
    host = replace(SLICE, cpusets={**SLICE.cpusets, "/machine/rt": frozenset({8, 9})})
    said = plan(host, other, policy, {}).warnings
    assert len(said) == 2


def test_guests_of_cpusets_that_overlap_stay_where_they_are() -> None:
    """In whichever order they are counted: four vCPUs on CPUs 0-3, and two on CPUs 2-7."""
    host = replace(
        machine(2, cores=8, threads=1, llcs=1),
        cpusets={"/rt": frozenset({0, 1, 2, 3}), "/web": frozenset({2, 3, 4, 5, 6, 7})},
    )
    crowd = [guest("z", 4, partition="/rt"), guest("a", 2, partition="/web")]
    made = planned(host, *crowd, overcommit="1")
    assert {one.kind for one in made.values()} == {PlacementKind.SHARED}
    assert planned(host, *crowd, current=made.values(), overcommit="1") == made


def test_cpus_to_which_a_guest_that_floats_is_confined_are_not_dedicated_to_others() -> None:
    """It has no others; the guest that asks for CPUs is smaller, so that it comes second."""
    host = replace(
        machine(2, cores=8, threads=1, llcs=1),
        cpusets={"/rt": frozenset({1, 2}), "/web": frozenset({1, 2, 3, 4})},
    )
    floats = guest("floats", 4, partition="/rt", wishes={"policy": "dedicated"})
    asks = guest("asks", 2, partition="/web", wishes={"policy": "dedicated"})
    made = planned(host, floats, asks, overcommit="2")
    assert cpus_of(made["floats"]) == ["1-2"] * 4
    assert cpus_of(made["asks"]) == ["3", "4"]
    assert planned(host, floats, asks, current=made.values(), overcommit="2") == made


def test_a_view_of_a_slice_asks_anew_what_the_whole_host_would_give() -> None:
    """Guests of a slice see only its 4 cores, of one kind, and no CPU 0, which an owner pinned."""
    cpus = {n: replace(cpu, capacity=512 if n < 8 else 1024) for n, cpu in TWO.cpus.items()}
    host = replace(TWO, cpus=cpus, cpusets={"/machine": frozenset(range(8, 16))})
    zero = 1 << host.grid.nodes[0].cpus.index(0)
    nodes = [NodeCapacity(one, 0, 0, 0 if at else zero) for at, one in enumerate(host.grid.nodes)]
    whole = HostCapacity(host, nodes, NodeMemory(host))
    for made, found in (
        (whole, (18.2, True, False)),
        (whole.within(guest("a", 2)), (5.2, False, True)),
    ):
        assert (round(made.yield_at_first.capacity, 6), made.owners_pin, made.alike) == found
