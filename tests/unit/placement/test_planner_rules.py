# SPDX-License-Identifier: GPL-2.0-or-later
"""Each rule of the planner by itself, on made-up machines on which it alone decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.machines import GIB, cpus_of, guest, machine, planned
from tuned_virt.model.guest import Cell, CpuTopology, Guest, HugePages, UserPins
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.placement import PlacementKind, multi_node, parse, plan

# --- memory ---------------------------------------------------------------------------------------


def with_pages(host: Host, *free: int) -> Host:
    """Free huge pages of 2 MiB by node."""
    nodes = tuple(replace(node, free_pages={2048: n}) for node, n in zip(host.nodes, free))
    return replace(host, nodes=nodes)


def test_huge_pages_must_be_free_on_the_node() -> None:
    wants = guest("a", 2, huge_pages=(HugePages(2048),))
    assert planned(with_pages(machine(), 511, 512), wants)["a"].nodes == (1,)
    split = planned(with_pages(machine(), 256, 256), wants)["a"]
    assert split.nodes == (0, 1), "half its pages on each"
    alone = planned(with_pages(machine(), 255, 256), wants)["a"]
    assert alone.kind is PlacementKind.UNPLACED
    assert "no node with 2 free vCPUs has 512 huge pages of 2048 KiB free" in (alone.why)


def test_a_host_that_tells_no_memory_is_planned() -> None:
    host = replace(machine(nodes=2, cores=1, threads=1, llcs=1, gib=0), isolated=frozenset({0, 1}))
    placed = planned(host, guest("a", 1), policy="dedicated")["a"]
    assert (placed.kind, placed.vcpus) == (PlacementKind.SHARED, {0: "0"})
    assert "it needs 1 CPU that can be dedicated" in placed.why


def test_huge_pages_are_given_once() -> None:
    host = with_pages(machine(), 512, 600)
    made = planned(host, *(guest(n, 2, huge_pages=(HugePages(2048),)) for n in "abc"))
    assert sorted(one.nodes for one in made.values()) == [(), (0,), (1,)]


@pytest.mark.parametrize("mode", ["restrictive", "strict"])
@pytest.mark.parametrize(("gib", "wall"), [(7.5, True), (7.59, True), (7.61, False), (8, False)])
def test_a_wall_only_with_five_percent_to_spare(mode: str, gib: float, wall: bool) -> None:
    """Of 8 GiB: 0.4 GiB."""
    one = planned(machine(1), guest("a", 2, gib), memory=mode)["a"]
    assert one.memory
    assert (one.memory.mode, one.memory.nodeset) == (mode if wall else "move", "0")
    assert (
        "memory is not bound, because node 0 does not have 5 % more free" in one.why
    ) is not wall
    assert one.ungranted == ("" if wall else f"memory={mode}")


def test_no_wall_where_plugged_memory_would_not_fit() -> None:
    grows = replace(guest("a", 2, 4), max_memory=8 * GIB)
    one = planned(machine(1), grows, memory="strict")["a"]
    assert one.memory
    assert one.memory.mode == "move"


def test_neighbours_count_against_a_wall() -> None:
    made = planned(machine(1), guest("a", 2, 4), guest("b", 2, 3.8), memory="restrictive")
    assert {one.memory.mode for one in made.values() if one.memory} == {"move"}


def test_memory_that_is_there_pulls_and_immovable_memory_binds() -> None:
    there = guest("a", 2, resident={1: GIB})
    made = planned(machine(), there)["a"]
    assert (made.nodes, made.why) == (
        (1,), "node 1 rather than node 0: 0.0 GiB of its memory is elsewhere, compared with 1.0"
    )  # fmt: skip
    full = guest("big", 8, owned=UserPins(nodes=frozenset({1})))
    assert planned(machine(), there, full)["a"].nodes == (0,)
    locked = planned(machine(), replace(there, locked=True), full)
    assert locked["a"].nodes != (0,), "its pages cannot follow"


# --- devices --------------------------------------------------------------------------------------

DEVICE = "0000:3b:00.0"


def test_a_device_pulls_its_guest() -> None:
    host = replace(machine(4), devices={DEVICE: 2}, disks={"nvme0n1": 1})
    one = planned(host, guest("a", 2, devices=(DEVICE,)))["a"]
    assert (one.nodes, one.why) == (
        (2,), f"node 2 rather than node 3: nearer to its device {DEVICE}"
        " (distance +0, compared with +2)"
    )  # fmt: skip
    full = guest("big", 8, owned=UserPins(nodes=frozenset({2})))
    beside = planned(host, full, guest("a", 2, devices=(DEVICE,)))
    assert 3 in {*beside["a"].nodes, *beside["big"].nodes}, "the nearest other, not the emptiest"


def test_memory_that_cannot_move_comes_before_a_device() -> None:
    host = replace(machine(), devices={DEVICE: 0})
    mostly = guest("a", 2, devices=(DEVICE,), resident={0: GIB, 1: 3 * GIB})
    one = planned(host, mostly)["a"]
    assert (one.nodes, one.why) == (
        (1,), "node 1 rather than node 0: 1.0 GiB of its memory is elsewhere, compared with 3.0"
    )  # fmt: skip
    even = planned(host, replace(mostly, resident={0: GIB, 1: GIB}))["a"]
    assert (even.nodes, "nearer to its device" in even.why) == ((0,), True)


def test_iothreads_run_at_the_node_of_their_disk() -> None:
    host = replace(machine(), disks={"nvme0n1": 1}, devices={DEVICE: 1})
    wants = guest(
        "a", 2, resident={0: GIB}, iothreads={1: ("nvme0n1",), 2: (), 3: (DEVICE,), 4: ("sda",)}
    )
    one = planned(host, wants)["a"]
    assert (one.nodes, one.emulator) == ((0,), "0-7")
    assert one.iothreads == {1: "8-15", 2: "0-7", 3: "8-15", 4: "0-7"}
    keeps = planned(host, wants, iothreads="housekeeping")["a"]
    assert set(keeps.iothreads.values()) == {"0-1"}
    follows = planned(host, wants, iothreads="emulator", emulator="shared-with-vcpu0")["a"]
    assert set(follows.iothreads.values()) == {follows.vcpus[0]} == {follows.emulator}


# --- CPUs -----------------------------------------------------------------------------------------


def test_isolated_cpus_are_for_dedicated_guests_alone() -> None:
    host = replace(machine(), isolated=frozenset({4, 5, 6, 7}), nohz_full=frozenset({6, 7}))
    made = planned(
        host, guest("d", 4, wishes={"policy": "dedicated"}), guest("f", 4, resident={0: GIB})
    )
    assert (made["d"].nodes, cpus_of(made["d"])) == ((0,), ["4", "5", "6", "7"])
    assert made["d"].emulator == "0-3"
    assert (made["f"].nodes, set(cpus_of(made["f"]))) == ((0,), {"0-3"})


def test_dedicated_guests_go_to_nodes_with_isolated_cpus() -> None:
    """isolcpus=8-15 on a host of two nodes: node 0 has more free CPUs, but ordinary ones."""
    host = replace(machine(), isolated=frozenset(range(8, 16)))
    for vcpus in (2, 4, 8):
        assert planned(host, guest("a", vcpus), policy="dedicated")["a"].nodes == (1,)
    two = planned(host, guest("a", 6), guest("b", 4), policy="dedicated")
    assert (two["a"].nodes, two["b"].nodes) == ((1,), (0,)), "the others when those are taken"
    assert two["b"].why.startswith("node 0: the only node with room")


def hybrid(fast: int, slow: int) -> Host:
    """One node and LLC: performance cores with two threads, efficient ones with one, as Intel's
    12th to 14th generations number them."""
    cpus = {}
    for cpu in range(2 * fast + slow):
        siblings = frozenset({cpu - cpu % 2, cpu - cpu % 2 + 1} if cpu < 2 * fast else {cpu})
        capacity = 1024 if cpu < 2 * fast else 512
        cpus[cpu] = CpuDetail(cpu, 0, 0, 0, min(siblings), siblings, capacity)
    node = NumaNode(0, frozenset(cpus), 64 * GIB, {0: 10}, {})
    return Host((node,), cpus, (Cache(frozenset(cpus), 30 << 10),))


@pytest.mark.parametrize(("fast", "slow"), [(8, 4), (6, 8), (8, 16), (6, 4)])
@pytest.mark.parametrize(("vcpus", "threads"), [(2, 1), (4, 2), (8, 2), (12, 2)])
def test_performance_cores_come_first(fast: int, slow: int, vcpus: int, threads: int) -> None:
    """i7-12700, i5-13600K, i9-13900K, i5-12600K: whichever kind would be left over least."""
    wants = guest("a", vcpus, topology=CpuTopology(cores=vcpus // threads, threads=threads))
    made = planned(hybrid(fast, slow), wants, policy="dedicated")["a"]
    assert all(int(cpu) < 2 * fast for cpu in cpus_of(made))


def test_the_host_keeps_an_efficient_core() -> None:
    made = planned(hybrid(8, 4), guest("a", 16), policy="dedicated")["a"]
    assert sorted(map(int, cpus_of(made))) == list(range(16)), "all performance cores"
    more = planned(hybrid(8, 4), guest("a", 16), guest("b", 3), policy="dedicated")
    assert sorted(map(int, cpus_of(more["b"]))) == [17, 18, 19], "16 is for housekeeping"


@pytest.mark.parametrize("overcommit", ["1.5", "2", "4"])
def test_a_guest_is_not_overcommitted_against_itself(overcommit: str) -> None:
    """24 or 40 vCPUs on two nodes of 16 CPUs, as OpenStack Nova rules it too."""
    host = machine(2, cores=8)
    made = planned(host, guest("a", 24), overcommit=overcommit)["a"]
    assert made.nodes == (0, 1)
    wide = planned(host, guest("a", 40), overcommit=overcommit)["a"]
    assert Counter(wide.vcpus.values()) == {"0-15": 20, "16-31": 20}, "more than the host has"
    several = planned(host, *(guest(name, 12) for name in "abcd"), overcommit="2")
    assert sorted(one.nodes for one in several.values()) == [(0,), (0,), (1,), (1,)]


def test_it_is_where_nothing_else_is_left_that_overcommit_allows() -> None:
    pins = UserPins(vcpus=dict.fromkeys(range(16), frozenset(range(16, 32))))
    crowd = (guest("a", 24), guest("owners", 16, owned=pins))
    made = planned(machine(2, cores=8), *crowd, overcommit="4")
    assert made["a"].nodes == (0,), "the other node is full"
    assert planned(machine(2, cores=8), *crowd, current=made.values(), overcommit="4") == made


@pytest.mark.parametrize(
    "owned",
    [
        UserPins(emulator=frozenset({8})),
        UserPins(iothreads={1: frozenset({9, 10})}),
        UserPins(emulator=frozenset({8}), iothreads={1: frozenset(range(16))}),
    ],
)
def test_threads_that_the_owner_pinned_draw_the_guest(owned: UserPins) -> None:
    one = planned(machine(), guest("a", 2, iothreads={1: ()}, owned=owned))["a"]
    assert (one.nodes, one.why) == (
        (1,), "node 1 rather than node 0: nearer to the CPUs to which its owner pinned its emulator"
        " thread or IOThreads (distance +0, compared with +2)"
    )  # fmt: skip


def test_an_llc_is_kept_whole() -> None:
    host = machine(1, cores=8, threads=1, llcs=2)
    made = planned(host, guest("a", 4), policy="dedicated")
    assert cpus_of(made["a"]) == ["4", "5", "6", "7"], "the first core is kept for housekeeping"
    more = planned(host, guest("a", 3), guest("b", 4), policy="dedicated")
    assert cpus_of(more["a"]) == ["1", "2", "3"]
    assert cpus_of(more["b"]) == ["4", "5", "6", "7"]


@pytest.mark.parametrize(
    ("smt", "vcpus", "threads", "cpus"),
    [
        ("prefer", 3, 1, ["4", "5", "6"]),
        ("prefer", 4, 2, ["4", "5", "6", "7"]),
        ("require", 3, 1, ["4", "5", "6"]),
        ("isolate", 2, 1, ["4", "6"]),
        ("isolate", 3, 1, ["4", "6", "2"]),
    ],
)
def test_threads_of_a_core(smt: str, vcpus: int, threads: int, cpus: list[str]) -> None:
    wants = guest("a", vcpus, topology=CpuTopology(cores=vcpus // threads, threads=threads))
    assert cpus_of(planned(machine(1), wants, policy="dedicated", smt=smt)["a"]) == cpus


def test_what_isolate_and_require_leave_of_a_core_stays_idle() -> None:
    floating = guest("f", 1, wishes={"policy": "node"})
    for smt, left in (("require", {"0-3"}), ("isolate", {"0-1"}), ("prefer", {"0-3,7"})):
        made = planned(machine(1), guest("a", 3), floating, policy="dedicated", smt=smt)
        assert set(cpus_of(made["f"])) == left, smt


def test_cores_without_smt_are_not_enough_for_require() -> None:
    one = planned(machine(1, cores=8, threads=1), guest("a", 2), policy="dedicated", smt="require")
    assert one["a"].kind is PlacementKind.SHARED
    assert one["a"].why.startswith(
        "not dedicated: it needs 2 CPUs of whole SMT cores that can be dedicated"
    )


def test_overcommit_is_what_a_node_takes() -> None:
    """On two nodes of 8 CPUs; on one node nothing is confined."""
    for overcommit, fitting in (("1", 8), ("1.5", 12), ("4", 32)):
        crowd = [guest(f"g{n:02}", 2, 0.1) for n in range(40)]
        made = planned(machine(2, gib=64), *crowd, overcommit=overcommit)
        placed = [one for one in made.values() if one.kind is PlacementKind.SHARED]
        assert len(placed) == fitting
        alone = [one for one in made.values() if one.kind is PlacementKind.UNPLACED]
        assert all("needs 2 free vCPUs" in o.why and f"(now {overcommit})" in o.why for o in alone)
        assert len(placed) + len(alone) == 40


# --- wishes ---------------------------------------------------------------------------------------


def test_a_guest_wishes_for_itself() -> None:
    wishes = {"policy": "dedicated", "smt": "isolate", "memory": "none", "emulator": "housekeeping"}
    made = planned(
        machine(), guest("a", 2, wishes=wishes), guest("b", 2, wishes={"policy": "none"})
    )
    assert (made["a"].kind, cpus_of(made["a"])) == (PlacementKind.DEDICATED, ["4", "6"])
    assert (made["a"].memory, made["a"].emulator) == (None, "0-1")
    assert (made["b"].kind, made["b"].chosen) == (PlacementKind.UNPLACED, True)


def test_a_wish_for_dedicated_cpus_that_is_not_granted_is_told() -> None:
    """By metadata or by the section's policy; also of one that was placed before."""
    floats = planned(machine(1), guest("a", 7), policy="dedicated")["a"]
    assert (floats.kind, floats.ungranted) == (PlacementKind.SHARED, "policy=dedicated")
    before = planned(machine(1), guest("a", 7))["a"]
    assert before.ungranted == ""
    wanted = parse({"policy": "dedicated"})
    [after] = plan(machine(1), [guest("a", 7)], wanted, {before.uuid: before}).placements
    assert (after.kind, after.ungranted) == (PlacementKind.SHARED, "policy=dedicated")
    wishes = {"policy": "dedicated"}
    guests = [guest("a", 6, wishes=wishes), guest("b", 4, wishes=wishes), guest("c", 1)]
    made = planned(machine(1), *guests)
    assert {name: (one.kind, one.ungranted) for name, one in made.items()} == {
        "a": (PlacementKind.DEDICATED, ""),
        "b": (PlacementKind.UNPLACED, "policy=dedicated"),
        "c": (PlacementKind.SHARED, ""),
    }


@pytest.mark.parametrize("wish", [{"smt": "maybe"}, {"overcommit": "64"}, {"housekeeping": "0"}])
def test_wishes_that_are_not_a_guests_leave_it_alone(wish: dict[str, str]) -> None:
    made = planned(machine(), guest("a", 2, wishes=wish), guest("b", 2))
    assert made["a"].kind is PlacementKind.UNPLACED
    assert made["a"].why.startswith("its metadata is not valid: option '")
    assert not made["a"].chosen
    assert made["a"].ungranted == "what its metadata asks"
    assert made["b"].ungranted == ""
    assert made["b"].kind is PlacementKind.SHARED


@pytest.mark.parametrize(
    "wish",
    [
        {"smt": "x" * 10**6},
        {"smt": "prefer" + " " * 10**6 + "x"},
        {"y" * 10**6: "x"},
        {f"name{number}": "x" for number in range(10**4)},
    ],
)
def test_a_wish_of_a_megabyte_is_neither_granted_nor_logged_whole(wish: dict[str, str]) -> None:
    one = planned(machine(), guest("a", 2, wishes=wish))["a"]
    assert (one.kind, one.chosen) == (PlacementKind.UNPLACED, False)
    assert one.why.startswith("its metadata is not valid: option '")
    assert len(one.why) < 600


def test_a_host_that_says_nothing_of_its_memory_takes_guests_up_to_its_cpus() -> None:
    """Nodes without a size divide nothing, not even by 0."""
    host = machine(gib=0)
    full = [guest(f"full{number}", 8) for number in range(2)]
    wants = guest("a", 2, resident={0: GIB})
    made = planned(host, *full, wants)
    assert [one.kind for one in made.values()].count(PlacementKind.UNPLACED) == 1


# --- several nodes --------------------------------------------------------------------------------


def cells(number: int, vcpus: int, gib: float) -> Guest:
    each = vcpus // number
    own = tuple(
        Cell(c, frozenset(range(c * each, (c + 1) * each)), int(gib * GIB) // number)
        for c in range(number)
    )
    return guest("cells", vcpus, gib, cells=own)


def test_cells_go_whole_to_the_nearest_nodes() -> None:
    one = planned(machine(4), cells(2, 16, 4))["cells"]
    assert one.nodes == (0, 1)
    assert one.memory
    assert one.memory.cells == {0: 0, 1: 1}
    taken = guest("x", 2, 1, owned=UserPins(nodes=frozenset({1})))
    beside = planned(machine(4), cells(2, 16, 4), taken)["cells"]
    assert beside.nodes == (2, 3), "a near pair that is free, before 0 and a far one"
    assert set(cpus_of(beside)[:8]) == {"16-23"}
    assert set(cpus_of(beside)[8:]) == {"24-31"}


def test_cells_are_drawn_to_devices_and_memory() -> None:
    host = replace(machine(4), devices={DEVICE: 3})
    assert planned(host, replace(cells(2, 16, 4), devices=(DEVICE,)))["cells"].nodes == (2, 3)
    there = replace(cells(2, 16, 4), resident={2: GIB, 3: GIB})
    assert planned(machine(4), there)["cells"].nodes == (2, 3)


def test_equal_cells_are_never_permuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 equal cells on 16 nodes: Nova tried 16!/8! = 519 million ways (LP#1978372)."""
    steps = 0
    real = multi_node._CellSearch._descend

    def counted(self: Any, chosen: list[int], distance: int) -> None:
        nonlocal steps
        steps += 1
        real(self, chosen, distance)

    monkeypatch.setattr(multi_node._CellSearch, "_descend", counted)
    one = planned(machine(16, cores=4, threads=1, llcs=1), cells(8, 24, 8), policy="dedicated")
    assert len(one["cells"].nodes) == 8
    assert steps < 20 * multi_node.MOST_STEPS


def test_a_guest_without_cells_is_cut_by_whole_cores() -> None:
    wants = guest("a", 10, 2, topology=CpuTopology(cores=5, threads=2))
    one = planned(machine(4), wants, guest("b", 1), policy="node")["a"]
    assert len(one.nodes) == 2
    assert {cpus_of(one).count(text) % 2 for text in set(cpus_of(one))} == {0}


# --- what is in force -----------------------------------------------------------------------------


def test_vcpus_that_are_added_sit_beside_the_others() -> None:
    for policy in ("node", "dedicated"):
        small, neighbour = guest("a", 2), guest("b", 2)
        before = planned(machine(), small, neighbour, policy=policy)
        grown = replace(small, vcpus=4, online=(0, 1, 3))
        after = planned(machine(), grown, neighbour, current=before.values(), policy=policy)
        assert after["a"].nodes == before["a"].nodes
        assert {v: after["a"].vcpus[v] for v in (0, 1)} == before["a"].vcpus
        assert list(after["a"].vcpus) == [0, 1, 3]
        assert after["b"] == before["b"]


def test_added_vcpus_that_do_not_fit_beside_the_others_move_the_guest() -> None:
    small = guest("a", 2, resident={0: GIB})
    full = guest("b", 4, owned=UserPins(nodes=frozenset({0})))
    before = planned(machine(), small, full, policy="dedicated")
    assert before["a"].nodes == (0,)
    after = planned(
        machine(), replace(small, vcpus=6, online=tuple(range(6))), full,
        current=before.values(), policy="dedicated",
    )  # fmt: skip
    assert after["a"].nodes == (1,)
    assert after["b"].vcpus == before["b"].vcpus, "nobody takes what it has"


@pytest.mark.parametrize("moves", [0, 1, 2, 5])
def test_rebalance_moves_at_most_so_many(moves: int) -> None:
    host = machine(4)
    guests = [guest(name, 2) for name in "abc"]
    whole = planned(host, *guests)
    split = [replace(one, nodes=(0, 1), vcpus={0: "0-7", 1: "8-15"}) for one in whole.values()]
    after = planned(host, *guests, current=split, rebalance=str(moves))
    moved = [one for one in after.values() if len(one.nodes) == 1]
    assert len(moved) == min(moves, 3)
    assert all(one.why.startswith("moved to a better place: node ") for one in moved)


def test_a_placement_on_cpus_that_are_gone_is_made_anew() -> None:
    host = machine()
    before = planned(host, guest("a", 2), policy="dedicated")
    gone = int(before["a"].vcpus[0])
    left = {cpu: detail for cpu, detail in host.cpus.items() if cpu != gone}
    left = {cpu: replace(one, siblings=one.siblings - {gone}) for cpu, one in left.items()}
    fewer = replace(host, cpus=left, offline=frozenset({gone}))
    after = planned(fewer, guest("a", 2), current=before.values(), policy="dedicated")
    assert str(gone) not in cpus_of(after["a"])
    assert after["a"].kind is PlacementKind.DEDICATED


# --- why ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "guests", "options", "why"),
    [
        (machine(1), [guest("a", 2)], {}, "node 0: the only node"),
        (
            machine(),
            [guest("a", 2)],
            {},
            "node 0 rather than node 1: both nodes fit equally well, so the lower",
        ),
        (
            machine(),
            [guest("a", 2), guest("b", 4)],
            {},
            "node 1 rather than node 0: it would be 25 % full, not 75 %",
        ),
        (
            machine(),
            [guest("a", 8), guest("big", 8, 7.5)],
            {},
            "node 1: the only node with room",
        ),
        (
            machine(),
            [guest("a", 5), guest("b", 4)],
            {"policy": "dedicated"},
            "node 0 rather than node 1: both nodes fit equally well",
        ),
        (
            machine(),
            [guest("a", 4), guest("b", 6)],
            {"policy": "dedicated"},
            "node 1: the only node with room",
        ),
        (
            machine(),
            [guest("a", 2), guest("b", 3)],
            {"policy": "dedicated"},
            "node 0 rather than node 1: ",
        ),
        (
            machine(2, gib=2),
            [guest("a", 2, 3)],
            {},
            "nodes 0 and 1: no node with 2 free vCPUs has 3.0 GiB of memory for"
            " it; these are the fewest and nearest nodes that have it",
        ),
        (
            machine(2, gib=2),
            [guest("a", 1, 3)],
            {},
            "node 0: no node with 1 free vCPU has 3.0 GiB of memory for it; its"
            " memory spans nodes 0-1",
        ),
        (
            machine(),
            [guest("a", 20)],
            {},
            "not placed: it needs 20 free vCPUs; node 0 has the most (8). Raise vm_overcommit"
            " (now 1)",
        ),
    ],
)
def test_why(host: Host, guests: list[Guest], options: dict[str, Any], why: str) -> None:
    assert planned(host, *guests, **options)["a"].why.startswith(why)


def test_a_cpu_that_two_owners_pinned_is_said() -> None:
    pins = UserPins(vcpus={0: frozenset({3})})
    guests = [guest("a", 1, owned=pins), guest("b", 1, owned=pins)]
    made = plan(machine(), guests, parse({}), {})
    assert made.warnings == ("CPU 3 is pinned by 2 vCPUs: a, b",)
