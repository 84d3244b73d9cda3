# SPDX-License-Identifier: GPL-2.0-or-later
"""overcommit=auto: crowded hosts, on which everybody is placed and nobody loses."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from tests.unit.machines import GIB, guest, machine, planned
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Cell, CpuTopology, Guest, HugePages, UserPins
from tuned_virt.model.topology import CpuDetail, Host
from tuned_virt.placement import (
    Placement,
    PlacementKind,
    PlacementPlan,
    Planner,
    for_guests,
    parse,
    plan,
)
from tuned_virt.placement.sharing import core_shares

WIDE = machine(2, cores=8, gib=64)
"""2 x 8 cores with two threads."""

DEDICATED = {"policy": "dedicated"}


def auto(host: Host, *guests: Guest, **options: str) -> dict[str, Placement]:
    made = plan(for_guests(host, guests), guests, parse(options), {})
    assert made.complete
    return {one.guest: one for one in made.placements}


def one_by_one(host: Host, guests: list[Guest], **options: str) -> PlacementPlan:
    """Each guest starts while those before it run."""
    planner, policy = Planner(), parse(options)
    made = planner.plan(host, [], policy, {})
    for number in range(len(guests)):
        current = {one.uuid: one for one in made.placements}
        made = planner.plan(host, guests[: number + 1], policy, current)
    return made


def loads(host: Host, made: PlacementPlan) -> Counter[int]:
    """vCPUs by node, of guests that are on one each."""
    found: Counter[int] = Counter()
    for one in made.placements:
        assert len(one.nodes) == 1, one
        found[one.nodes[0]] += len(one.vcpus)
    return found


def lost(host: Host, guests: list[Guest], made: PlacementPlan) -> float:
    """The largest part of its cores that a guest loses."""
    return 1 - min(one.kept for one in core_shares(host, guests, made.placements).values())


# --- crowded hosts --------------------------------------------------------------------------------


def test_thirty_guests_of_four_vcpus_on_two_times_sixteen_cores_in_any_order() -> None:
    host = machine(2, cores=16, gib=256)
    crowd = [guest(f"g{n:02}", 4, 4) for n in range(30)]
    assert loads(host, plan(host, crowd, parse({}), {})) == {0: 60, 1: 60}
    for seed in range(5):
        random.Random(seed).shuffle(crowd)
        made = one_by_one(host, crowd)
        assert loads(host, made) == {0: 60, 1: 60}
        assert made.complete


@pytest.mark.parametrize("percent", [50, 100, 200, 400])
def test_guests_of_all_sizes_are_all_placed_and_lose_nothing_to_speak_of(percent: int) -> None:
    host = machine(4, cores=8, gib=1024)
    draw = random.Random(percent)
    crowd: list[Guest] = []
    while sum(one.vcpus for one in crowd) < 64 * percent // 100:
        crowd.append(guest(f"g{len(crowd):03}", draw.choice([1, 2, 2, 4, 4, 6, 8, 12]), 2))
    for made in (plan(host, crowd, parse({}), {}), one_by_one(host, crowd)):
        assert {one.kind for one in made.placements} == {PlacementKind.SHARED}
        assert lost(host, crowd, made) <= 0.1 + 1e-6


def test_sixteen_vcpus_are_not_confined_to_eight_cores() -> None:
    """../cases: smt-16. Two nodes give it sixteen; 9 % of loss are borne, more are not."""
    one = auto(WIDE, guest("a", 16))["a"]
    assert (one.nodes, Counter(one.vcpus.values())) == ((0, 1), {"0-15": 8, "16-31": 8})
    assert one.why == (
        "nodes 0 and 1: it needs room for 16 vCPUs; node 0 has the most (9) before a guest loses"
        " over 10 % of its cores; these are the fewest and nearest nodes that have it"
    )
    assert auto(WIDE, guest("a", 9))["a"].nodes == (0,)
    assert auto(WIDE, guest("a", 10))["a"].nodes == (0, 1)


def test_threads_are_cores_for_a_guest_that_takes_them_for_threads() -> None:
    """Also where others have come, but no more than there are."""
    sixteen = guest("a", 16, topology=CpuTopology(cores=8, threads=2))
    one = auto(WIDE, sixteen)["a"]
    assert (one.nodes, set(one.vcpus.values())) == ((0,), {"0-15"})
    more = guest("b", 18, topology=CpuTopology(cores=9, threads=2))
    assert auto(WIDE, more)["b"].nodes == (0, 1)
    both = auto(WIDE, sixteen, guest("c", 8))
    assert (both["a"].nodes, both["c"].nodes) == ((0,), (1,))


def test_none_is_overcommitted_against_itself_where_another_node_is() -> None:
    """../cases: self-overcommit-24."""
    one = auto(WIDE, guest("a", 24))["a"]
    assert Counter(one.vcpus.values()) == {"0-15": 12, "16-31": 12}
    cells = tuple(Cell(n, frozenset(range(12 * n, 12 * n + 12)), GIB // 2) for n in range(2))
    two = auto(WIDE, replace(guest("a", 24), cells=cells))["a"]
    assert [cpuset.parse(two.vcpus[vcpu]) for vcpu in (0, 11, 12, 23)] == [
        *[WIDE.nodes[0].cpus] * 2,
        *[WIDE.nodes[1].cpus] * 2,
    ]


def test_a_guest_that_would_lose_wherever_it_is_confined_floats_over_all_nodes() -> None:
    """Its memory cannot leave node 0, on which others are."""
    held = guest("a", 6, 1, locked=True, resident={0: GIB})
    others = [guest(f"b{n}", 8, 1, locked=True, resident={0: GIB}) for n in range(2)]
    made = auto(WIDE, *others, held)
    assert (made["b0"].nodes, made["a"].nodes) == ((0,), (0, 1))
    assert set(made["a"].vcpus.values()) == {made["a"].emulator} == {"0-31"}
    assert made["a"].memory is None
    assert made["a"].why.startswith("floats over all nodes: it needs room for 6 vCPUs; node 0 has")
    again = plan(WIDE, [*others, held], parse({}), {one.uuid: one for one in made.values()})
    assert {one.guest: one for one in again.placements} == made
    strict = auto_unbound(WIDE, *others, held, memory="strict")
    assert strict["a"].memory is None


def auto_unbound(host: Host, *guests: Guest, **options: str) -> dict[str, Placement]:
    made = plan(for_guests(host, guests), guests, parse(options), {})
    return {one.guest: one for one in made.placements}


def test_guests_stay_where_they_are_when_others_come_and_go() -> None:
    crowd = [guest(f"g{n:02}", 4, 1) for n in range(12)]
    made = one_by_one(WIDE, crowd)
    current = {one.uuid: one for one in made.placements}
    less = plan(WIDE, crowd[:6], parse({}), current)
    assert list(less.placements) == list(made.placements)[:6]


def test_dedicated_cpus_are_given_on_a_full_host_and_the_others_share_the_rest() -> None:
    """A gaming guest that starts last: 16 CPUs, three guests of 4, then one of 8."""
    host = machine(1, cores=8)
    crowd = [guest(f"g{n}", 4, 1) for n in range(3)]
    own = guest("gaming", 8, 1, wishes=DEDICATED)
    made = {one.guest: one for one in one_by_one(host, [*crowd, own]).placements}
    taken = {int(cpu) for cpu in made["gaming"].vcpus.values()}
    assert (made["gaming"].kind, len(taken)) == (PlacementKind.DEDICATED, 8)
    shared = cpuset.text(host.cpus.keys() - taken)
    assert {text for one in crowd for text in made[one.name].vcpus.values()} == {shared}


def test_nodes_of_other_cores_confine_nobody() -> None:
    """The scheduler gives all guests their turn on the fast ones."""
    cpus = {
        cpu: CpuDetail(cpu, cpu // 4, 0, 0, cpu, frozenset({cpu}), 1024 if cpu < 4 else 512)
        for cpu in range(8)
    }
    host = replace(machine(2, cores=4, threads=1), cpus=cpus, caches=())
    assert auto(host, guest("a", 2))["a"].nodes == (0, 1)


def test_on_one_node_beside_an_owners_pins() -> None:
    """They are shunned as long as that costs nobody a tenth, for all guests or for none."""
    host = machine(1, cores=8, threads=1)
    owned = UserPins(vcpus={0: frozenset({0}), 1: frozenset({1})})
    few = auto(host, guest("x", 2, owned=owned), guest("a", 4), guest("b", 2))
    assert {text for n in "ab" for text in few[n].vcpus.values()} == {"2-7"}
    crowd = [guest(n, 4) for n in "abc"]
    many = auto(host, guest("x", 2, owned=owned), *crowd)
    assert {text for n in "abc" for text in many[n].vcpus.values()} == {"0-7"}
    alone = auto(host, guest("x", 2, owned=owned), guest("a", 8))
    assert set(alone["a"].vcpus.values()) == {"0-7"}
    wanted = [guest("x", 2, owned=owned), *crowd, guest("d", 8)]
    made = one_by_one(host, wanted)
    current = {one.uuid: one for one in made.placements}
    assert plan(host, wanted, parse({}), current) == made


# --- memory ---------------------------------------------------------------------------------------


def test_forty_guests_of_four_gib_on_two_times_64_gib_are_placed() -> None:
    host = machine(2, cores=40, gib=64)
    crowd = [guest(f"g{n:02}", 2, 4) for n in range(40)]
    made = plan(host, crowd, parse({"memory": "strict"}), {})
    assert loads(host, made) == {0: 40, 1: 40}
    said = [one for one in made.placements if "memory is overcommitted" in one.why]
    assert len(said) == 8
    assert said[0].why.startswith("node 0 rather than node 1: both nodes fit equally well")
    assert "memory is overcommitted: no node has the 4.0 GiB left that it may use" in said[0].why
    assert {one.memory.mode for one in made.placements if one.memory} == {"move"}, "no wall"


def test_a_number_does_not_count_memory_that_is_not_to_be_placed() -> None:
    crowd = [guest(f"g{number:02}", 2, 4) for number in range(40)]
    host = machine(2, cores=8, gib=64)
    made = planned(host, *crowd, overcommit="4", memory="none").values()
    assert Counter(one.nodes for one in made) == {(0,): 20, (1,): 20}
    bound = planned(host, *crowd, overcommit="4").values()
    assert sum(one.kind is PlacementKind.UNPLACED for one in bound) == 8


def test_cells_beyond_the_memory_of_their_nodes_are_still_on_nodes_of_their_own() -> None:
    cells = tuple(Cell(n, frozenset(range(6 * n, 6 * n + 6)), 70 * GIB) for n in range(2))
    made = auto(WIDE, guest("a", 12, 140, cells=cells))["a"]
    assert [made.vcpus[vcpu] for vcpu in (0, 5, 6, 11)] == ["0-15", "0-15", "16-31", "16-31"]
    assert "memory is overcommitted: no node has the 140.0 GiB left" in made.why


def test_dedicated_cpus_do_not_hang_on_memory() -> None:
    crowd = [guest(n, 4, 70, wishes=DEDICATED) for n in "ab"]
    assert {one.kind for one in auto(WIDE, *crowd).values()} == {PlacementKind.DEDICATED}


def test_huge_pages_must_be_there() -> None:
    wants = guest("a", 2, huge_pages=(HugePages(2048),))
    [one] = plan(WIDE, [wants], parse({}), {}).placements
    assert one.kind is PlacementKind.UNPLACED
    assert (
        one.why == "not placed: no node with room for 2 vCPUs has 512 huge pages of 2048 KiB free"
    )


def test_guests_are_placed_by_the_memory_that_they_use() -> None:
    """8 GiB of 100, the rest ballooned; no wall, as they may have it again."""
    crowd = [guest(n, 4, 100, ballooned=92 * GIB) for n in "ab"]
    made = auto(WIDE, *crowd)
    assert {one.nodes for one in made.values()} == {(0,), (1,)}
    assert not any("memory" in one.why for one in made.values())
    walls = auto_unbound(WIDE, *crowd, memory="strict")
    assert {one.memory.mode for one in walls.values() if one.memory} == {"move"}
    small = auto_unbound(WIDE, guest("c", 4, 40, ballooned=30 * GIB), memory="strict")["c"]
    assert small.memory is not None
    assert small.memory.mode == "strict"


def test_what_a_balloon_keeps_is_missing_in_all_cells_but_not_in_huge_pages() -> None:
    cells = (Cell(0, frozenset({0, 1}), 60 * GIB), Cell(1, frozenset({2, 3}), 60 * GIB))
    made = auto(WIDE, guest("a", 4, 120, cells=cells, ballooned=60 * GIB))["a"]
    assert (len(made.nodes), "memory" in made.why) == (1, False)
    pages = {2048: 40 * GIB // 2048}
    host = replace(WIDE, nodes=tuple(replace(node, free_pages=pages) for node in WIDE.nodes))
    wants = guest("a", 4, 60, huge_pages=(HugePages(2048),), ballooned=40 * GIB)
    [one] = plan(host, [wants], parse({}), {}).placements
    assert len(one.nodes) == 2


def test_cores_of_four_threads_that_yield_the_same_with_fewer_cpus_take_fewer_vcpus() -> None:
    """Nodes of three cores, of which one has one thread that is not isolated: 8 CPUs, and 5."""
    host = machine(2, cores=3, threads=4, llcs=1)
    host = replace(host, isolated=frozenset({7, 9, 10, 11, 14, 15, 18, 19, 21, 22, 23}))
    wide = [guest(name, 6, topology=CpuTopology(cores=3, threads=2)) for name in "ab"]
    made = planned(host, *wide, overcommit="auto")
    assert made["a"].nodes == (0,)
    assert made["b"].nodes != (1,), "it has more vCPUs than node 1 has CPUs"
