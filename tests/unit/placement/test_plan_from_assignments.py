# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan in words: where threads run, why a node was chosen, why a guest is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.machines import GIB, cpus_of, guest, machine, planned
from tuned_virt.model.guest import Cell, CpuTopology, Guest, HugePages, UserPins
from tuned_virt.model.topology import Host
from tuned_virt.placement import PlacementKind, PlacementPolicy, parse, plan
from tuned_virt.placement.policy import PlacementMode

DEVICE = "0000:3b:00.0"


def why(host: Host, wanted: Guest, *others: Guest, **options: Any) -> str:
    return planned(host, wanted, *others, **options)[wanted.name].why


def dedicated(name: str, vcpus: int, gib: float = 1, **more: Any) -> Guest:
    return guest(name, vcpus, gib, wishes={"policy": "dedicated"}, **more)


def taken(*cpus: int) -> list[Guest]:
    """Owners' guests that have a CPU each."""
    return [guest(f"o{cpu}", 1, 0.01, owned=UserPins(vcpus={0: frozenset({cpu})})) for cpu in cpus]


TORN = range(2, 16, 2)
"""One thread of each core of a node but the first, which is kept for housekeeping."""


# --- why this node --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "wanted", "others", "reason"),
    [
        (
            replace(machine(), devices={DEVICE: 1}),
            guest("a", 1, devices=(DEVICE,)),
            [],
            f"node 1 rather than node 0: nearer to its device {DEVICE} (distance +0, compared"
            f" with +2)",
        ),
        (
            replace(machine(), devices={DEVICE: 1, "b": 1}),
            guest("a", 1, devices=(DEVICE, "b")),
            [],
            "node 1 rather than node 0: nearer to its 2 devices (distance +0, compared with +4)",
        ),
        (
            machine(),
            guest("a", 1, resident={1: 3 * GIB, 0: GIB // 2}),
            [],
            "node 1 rather than node 0: 0.5 GiB of its memory is elsewhere, compared with 3.0",
        ),
        (
            machine(),
            guest("a", 2),
            [guest("b", 4)],
            "node 1 rather than node 0: it would be 25 % full, not 75 %",
        ),
        (
            machine(),
            dedicated("a", 3),
            taken(1, 4, 5),
            "node 1 rather than node 0: it spans 1 LLC, compared with 2",
        ),
        (
            machine(2, cores=8),
            dedicated("a", 4, topology=CpuTopology(cores=2, threads=2)),
            taken(*TORN),
            "node 1 rather than node 0: 0 of its cores used only in part, compared with 2",
        ),
        (
            machine(),
            dedicated("a", 3),
            taken(4),
            "node 0 rather than node 1: 0 CPUs of an LLC left over, compared with 1",
        ),
        (
            machine(),
            dedicated("a", 2),
            taken(4, 5),
            "node 0 rather than node 1: 2 free CPUs left over, compared with 4",
        ),
        (
            machine(),
            guest("a", 1),
            [],
            "node 0 rather than node 1: both nodes fit equally well, so the lower-numbered one"
            " is used",
        ),
        (machine(), guest("a", 1), taken(*range(8)), "node 1: the only node with room"),
        (machine(1), guest("a", 1), [], "node 0: the only node"),
    ],
)
def test_what_decided(host: Host, wanted: Guest, others: list[Guest], reason: str) -> None:
    assert why(host, wanted, *others).startswith(reason)


def test_of_a_guest_with_threads_torn_cores_count_before_llcs() -> None:
    """Node 0 has an LLC of torn cores that holds it, node 1 whole cores in two LLCs."""
    others = taken(*TORN, *range(18, 22), *range(24, 30))
    host = machine(2, cores=8)
    tied = dedicated("a", 4, topology=CpuTopology(cores=2, threads=2))
    assert why(host, tied, *others) == (
        "node 1 rather than node 0: 0 of its cores used only in part, compared with 2"
    )
    untied = dedicated("a", 4)
    assert (
        why(host, untied, *others) == "node 0 rather than node 1: it spans 1 LLC, compared with 2"
    )


# --- why it is left alone -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "wanted", "options", "reason"),
    [
        (
            machine(1),
            dedicated("a", 7),
            {},
            "not dedicated: it needs 7 CPUs that can be dedicated; node 0 has the most (6);"
            " node 0: ",
        ),
        (
            machine(2),
            guest("a", 1, 17),
            {"overcommit": "2.5"},
            "not placed: no node with 1 free vCPU has 17.0 GiB of memory for it",
        ),
        (
            machine(1),
            guest("a", 1, 17),
            {},
            "not placed: no node with 1 free vCPU has 17.0 GiB of memory for it",
        ),
        (
            machine(2),
            guest("a", 20, 1),
            {"policy": "dedicated", "smt": "isolate"},
            "not placed: it needs 20 whole cores that can be dedicated; node 0 has the most (3); it"
            " needs 20 free vCPUs; node 0 has the most (8). Raise vm_overcommit (now 1)",
        ),
        (
            machine(2),
            guest("a", 20, 1),
            {"policy": "dedicated", "smt": "require"},
            "not placed: it needs 20 CPUs of whole SMT cores that can be dedicated; node 0 has the"
            " most (6); it needs 20 free vCPUs; node 0 has the most (8). Raise vm_overcommit",
        ),
        (
            machine(2),
            guest("a", 41, 1),
            {"overcommit": "2.5"},
            "not placed: it needs 41 free vCPUs; node 0 has the most (20). Raise vm_overcommit"
            " (now 2.5)",
        ),
        (
            machine(1),
            guest("a", 1, 1, huge_pages=(HugePages(1 << 20),)),
            {},
            "not placed: no node with 1 free vCPU has 1 huge pages of 1048576 KiB free",
        ),
        (
            machine(1),
            guest("a", 1, 1, owned=UserPins(nodes=frozenset({4}))),
            {},
            "not placed: its numatune allows no node of this host",
        ),
    ],
)
def test_what_is_lacking(host: Host, wanted: Guest, options: dict[str, Any], reason: str) -> None:
    assert why(host, wanted, **options).startswith(reason)


def test_huge_pages_of_several_sizes_in_words() -> None:
    cells = (Cell(0, frozenset({0}), GIB), Cell(1, frozenset({1}), GIB))
    pages = (HugePages(2048, frozenset({0})), HugePages(1 << 20, frozenset({1})))
    found = why(machine(1), guest("a", 2, 2, cells=cells, huge_pages=pages))
    assert "has 512 huge pages of 2048 KiB, 1 huge pages of 1048576 KiB free" in found


def test_a_node_that_is_over_its_fill_has_no_room_not_less_than_none() -> None:
    """Owners' ranges may need more than there is."""
    owners = [
        guest(f"o{n}", 8, 0.1, owned=UserPins(vcpus=dict.fromkeys(range(8), frozenset(own))))
        for n, own in enumerate((range(8), range(8), range(8, 16), range(8, 16)))
    ]
    assert "node 0 has the most (0)" in why(machine(2), guest("a", 9), *owners)


def test_the_roomiest_node_is_named_and_of_equal_ones_the_lower() -> None:
    assert "node 1 has the most (8)" in why(machine(), guest("a", 20), *taken(0))
    assert "node 0 has the most (8)" in why(machine(), guest("a", 20))


def test_who_may_run_on_dedicated_cpus_is_said() -> None:
    many = [guest(f"b{n}", 1, 1, wishes={"policy": "none"}) for n in range(5)]
    for number, names in ((1, "b0"), (3, "b0, b1, b2"), (5, "b0, b1, b2 and 2 more")):
        made = plan(machine(), [dedicated("a", 1), *many[:number]], PlacementPolicy(), {})
        assert made.warnings == (
            f"not placed, and can run on CPUs that are dedicated to others: {names}",
        )
        assert made.complete
    assert plan(machine(), [guest("a", 1), *many], PlacementPolicy(), {}).warnings == ()
    assert plan(machine(), [dedicated("a", 1)], PlacementPolicy(), {}).warnings == ()
    assert not plan(machine(), [guest("a", 99)], PlacementPolicy(overcommit=1), {}).complete


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "emulator"),
    [
        ({}, "0-1,4-7"),
        ({"emulator": "housekeeping"}, "0-1"),
        ({"emulator": "shared-with-vcpu0"}, "2"),
    ],
)
def test_where_the_emulator_runs(options: dict[str, Any], emulator: str) -> None:
    made = planned(machine(1), guest("a", 2), policy="dedicated", **options)["a"]
    assert (cpus_of(made), made.emulator) == (["2", "3"], emulator)


def test_vcpu_0_may_be_offline() -> None:
    wants = replace(guest("a", 3), online=(1, 2))
    made = planned(machine(1), wants, policy="dedicated", emulator="shared-with-vcpu0")["a"]
    assert (made.vcpus, made.emulator) == ({1: "2", 2: "3"}, "2")


def test_what_the_owner_pinned_of_them_stays() -> None:
    owned = UserPins(emulator=frozenset({6}), iothreads={1: frozenset({7})})
    wants = guest("a", 1, owned=owned, iothreads={1: (), 2: ()})
    made = planned(machine(1), wants)["a"]
    assert (made.emulator, made.iothreads) == ("6", {1: "7", 2: "0-7"})


def test_threads_of_a_node_without_shared_cpus_run_on_the_nearest_that_has_some() -> None:
    full = taken(*range(16, 24))
    there = guest("a", 1, iothreads={1: ("sda",)})
    host = replace(machine(4), disks={"sda": 2})
    made = planned(host, there, *full)["a"]
    assert (made.nodes, made.iothreads) == ((0,), {1: "24-31"})
    both = planned(host, there, *full, *taken(*range(24, 32)))["a"]
    assert both.iothreads == {1: "0-7"}, "of equally near ones the lower"


def test_threads_of_a_guest_on_several_nodes_run_on_all_of_them() -> None:
    made = planned(machine(4), guest("a", 10, 2, iothreads={1: ()}))["a"]
    assert (made.nodes, made.emulator, made.iothreads) == ((0, 1), "0-15", {1: "0-15"})
    kept = planned(machine(4), guest("a", 10, 2, iothreads={1: ()}), policy="dedicated",
                   emulator="housekeeping", iothreads="housekeeping")["a"]  # fmt: skip
    assert (kept.nodes, kept.emulator, kept.iothreads) == ((0, 1), "0-1,8-9", {1: "0-1,8-9"})


def test_an_iothread_of_several_disks_runs_near_the_first_that_is_somewhere() -> None:
    host = replace(machine(), disks={"sda": 1, "sdb": 0, "usb": -1}, devices={DEVICE: 1})
    wants = guest("a", 1, iothreads={
        1: ("usb", "sda", "sdb"), 2: ("sdb", "sda"), 3: ("unknown",), 4: (DEVICE,),
    })  # fmt: skip
    made = planned(host, wants)["a"]
    assert made.iothreads == {1: "8-15", 2: "0-7", 3: "0-7", 4: "8-15"}


# --- memory ---------------------------------------------------------------------------------------


def memory(host: Host, wanted: Guest, **options: Any) -> tuple[str, str, dict[int, int]] | None:
    found = planned(host, wanted, **options)[wanted.name].memory
    return (found.mode, found.nodeset, dict(found.cells)) if found else None


def test_where_memory_belongs() -> None:
    assert memory(machine(), guest("a", 1)) == ("move", "0", {})
    assert memory(machine(), guest("a", 1), memory="strict") == ("strict", "0", {})
    assert memory(machine(), guest("a", 1), memory="none") is None
    assert memory(machine(4), guest("a", 10, 2)) == ("move", "0-1", {})
    assert memory(machine(4), guest("a", 10, 2), memory="strict") == ("strict", "0-1", {})
    assert memory(machine(), guest("a", 1, 9)) == ("move", "0-1", {})


def test_cells_have_nodes_only_where_they_are_on_several() -> None:
    cells = tuple(Cell(c, frozenset(range(6 * c, 6 * c + 6)), GIB) for c in range(2))
    assert memory(machine(4), guest("a", 12, 2, cells=cells)) == ("move", "0-1", {0: 0, 1: 1})
    small = tuple(Cell(c, frozenset({c}), GIB) for c in range(2))
    assert memory(machine(4), guest("a", 2, 2, cells=small)) == ("move", "0", {0: 0, 1: 0})
    assert memory(machine(4), guest("a", 2, 2, cells=small[:1])) == ("move", "0", {})


def test_a_wall_needs_room_on_each_of_its_nodes() -> None:
    wide = guest("a", 1, 15.3)
    assert memory(machine(), wide, memory="strict") == ("move", "0-1", {})
    assert "node 0 does not have 5 % more free" in why(machine(), wide, memory="strict")
    assert memory(machine(), guest("a", 1, 15.1), memory="strict") == ("strict", "0-1", {})


@pytest.mark.parametrize(("most", "mode"), [(9.4, "strict"), (9.6, "move")])
def test_what_may_be_plugged_in_grows_where_the_memory_is(most: float, mode: str) -> None:
    """Of 4 GiB 3.2 are on node 0, which may grow by 80 % of what is plugged in: 7.6 fit."""
    grows = replace(guest("a", 10, 4), max_memory=int(most * GIB))
    assert memory(machine(4), grows, memory="strict") == (mode, "0-1", {})


def test_the_growth_of_all_guests_of_a_node_counts() -> None:
    both = [replace(guest(name, 1, 1), max_memory=int(3.7 * GIB)) for name in "ab"]
    made = planned(machine(1), *both, memory="strict")
    assert {one.memory.mode for one in made.values() if one.memory} == {"strict"}
    more = [replace(one, max_memory=int(3.9 * GIB)) for one in both]
    made = planned(machine(1), *more, memory="strict")
    assert {one.memory.mode for one in made.values() if one.memory} == {"move"}


# --- selections -----------------------------------------------------------------------------------


def test_guests_in_no_selection_are_left_alone() -> None:
    made = plan(machine(), [guest("a", 1), guest("b", 1)], {"uuid-a": PlacementPolicy()}, {})
    assert [(one.kind, one.why, one.chosen) for one in made.placements][1] == (
        PlacementKind.UNPLACED, "policy=none", True,
    )  # fmt: skip
    assert made.complete


def test_each_selection_has_its_policy() -> None:
    policies = {
        "uuid-a": PlacementPolicy(policy=PlacementMode.DEDICATED),
        "uuid-b": parse({"memory": "strict"}),
    }
    made = plan(machine(), [guest("b", 1), guest("a", 1)], policies, {})
    kinds = [(one.guest, one.kind, one.memory and one.memory.mode) for one in made.placements]
    assert kinds == [("a", PlacementKind.DEDICATED, "move"), ("b", PlacementKind.SHARED, "strict")]


def test_a_guest_that_is_given_twice_is_said() -> None:
    larger = replace(guest("a", 2, 2), name="b")
    made = plan(machine(), [larger, guest("a", 1)], PlacementPolicy(), {})
    assert [one.guest for one in made.placements] == ["a"]
    assert made.warnings == ("guest b is given twice: uuid-a",)
    noted = plan(machine(), [guest("a", 1, notes=("odd",))], PlacementPolicy(), {})
    assert noted.warnings == ("guest a: odd",)


# --- housekeeping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "cpus"),
    [
        (None, ["4", "5", "6", "7"]),
        ("6", ["0", "1", "2", "3"]),
        ("0-3", ["4", "5", "6", "7"]),
        ("7", ["0", "1", "2", "3"]),
    ],
)
def test_housekeeping_cpus_are_never_dedicated(named: str | None, cpus: list[str]) -> None:
    options: dict[str, Any] = {"housekeeping": named} if named else {}
    made = planned(machine(1), guest("a", 4), policy="dedicated", **options)["a"]
    assert cpus_of(made) == cpus


def test_housekeeping_cpus_that_are_not_there_are_said() -> None:
    made = plan(machine(1), [guest("a", 1)], parse({"housekeeping": "0,20-40"}), {})
    assert made.warnings == (
        "housekeeping: these CPUs are not online here: 20, 21, 22, 23, 24, 25, 26, 27",
    )


def test_housekeeping_is_the_first_core_of_each_node_that_is_not_isolated() -> None:
    host = replace(machine(), isolated=frozenset({0, 1, 2, 8}))
    for node, cpu in ((0, "3"), (1, "9")):
        there = guest("a", 1, resident={node: GIB}, iothreads={1: ()})
        made = planned(host, there, iothreads="housekeeping")["a"]
        assert made.iothreads == {1: cpu}


# --- residents ------------------------------------------------------------------------------------


def measured(*gib: float, nodes: int = 2) -> Host:
    """So much is free now."""
    of = machine(nodes)
    return replace(of, nodes=tuple(
        replace(node, available=int(free * GIB)) for node, free in zip(of.nodes, gib)
    ))  # fmt: skip


def test_what_a_guest_has_is_room_for_it() -> None:
    """Free memory does not hold what it has already."""
    wants = guest("a", 1, 6, resident={1: 4 * GIB})
    assert planned(measured(5, 2), wants)["a"].nodes == (1,)
    split = planned(measured(5, 1.9), wants)["a"].memory
    assert split is not None
    assert split.nodeset == "0-1"
    new = guest("a", 1, 6)
    assert planned(measured(5, 6), new)["a"].nodes == (1,)


def test_what_a_guest_that_is_left_alone_has_is_no_room_for_others() -> None:
    other = guest("o", 1, 4, wishes={"policy": "none"}, resident={0: 4 * GIB})
    assert planned(measured(2, 1), guest("a", 1, 2), other)["a"].nodes == (0,)
    assert planned(measured(2, 1), guest("a", 1, 2.1), other)["a"].kind is PlacementKind.UNPLACED
    assert planned(machine(), guest("a", 1, 4.1), other)["a"].nodes == (1,)


def test_huge_pages_that_a_guest_has_are_its_own() -> None:
    base = machine(2)
    nodes = [
        replace(n, available=GIB, free_pages={2048: free}) for n, free in zip(base.nodes, (0, 400))
    ]
    host = replace(base, nodes=tuple(nodes))
    wants = guest("a", 1, 1, huge_pages=(HugePages(2048),), resident={0: GIB})
    made = planned(host, wants)["a"]
    assert made.nodes == (0,)


# --- edges ----------------------------------------------------------------------------------------


def test_placements_are_in_order_of_names_and_uuids() -> None:
    guests = [replace(guest(name, 1), uuid=uuid) for name, uuid in (("b", "1"), ("a", "3"))]
    guests.append(replace(guest("a", 1), uuid="2"))
    made = plan(machine(), guests, parse({}), {})
    assert [(one.guest, one.uuid) for one in made.placements] == [
        ("a", "2"),
        ("a", "3"),
        ("b", "1"),
    ]


@pytest.mark.parametrize(("number", "names"), [(3, "l0, l1, l2"), (4, "l0, l1, l2 and 1 more")])
def test_three_guests_without_a_place_are_named(number: int, names: str) -> None:
    loose = [guest(f"l{n}", 1, wishes={"policy": "none"}) for n in range(number)]
    made = plan(machine(), [dedicated("a", 1), *loose], parse({}), {})
    assert made.warnings == (
        f"not placed, and can run on CPUs that are dedicated to others: {names}",
    )


def test_an_emulator_is_left_alone_where_all_cpus_are_isolated_or_taken() -> None:
    host = replace(machine(1), isolated=frozenset(range(4, 8)))
    one = planned(host, dedicated("a", 2), *taken(0, 1, 2, 3))["a"]
    assert (one.kind, one.emulator) == (PlacementKind.DEDICATED, "")


@pytest.mark.parametrize(
    ("gib", "most", "mode"),
    [
        (19, 0, "strict"),
        (19 + 1 / GIB, 0, "move"),
        (18, 19, "strict"),
        (18, 19 + 1 / GIB, "move"),
    ],
    ids=["just the margin is free", "less", "just the margin beside what may be plugged", "less"],
)
def test_a_wall_needs_a_twentieth_of_the_node_free(gib: float, most: float, mode: str) -> None:
    one = guest("a", 1, gib, max_memory=int(most * GIB))
    memory = planned(machine(1, gib=20), one, memory="strict")["a"].memory
    assert memory is not None
    assert memory.mode == mode


def test_cells_have_no_nodes_of_their_own_where_the_memory_spans_several() -> None:
    cells = tuple(Cell(n, frozenset({n}), 3 * GIB) for n in range(2))
    one = planned(machine(4, gib=2), guest("a", 2, 6, cells=cells))["a"]
    assert one.memory is not None
    assert (one.nodes, one.memory.nodeset, one.memory.cells) == ((0,), "0-2", {})


def test_a_retained_guest_keeps_its_reason_also_without_its_wall() -> None:
    first = planned(machine(1), guest("a", 1, 4), memory="strict")["a"]
    after = planned(machine(1), guest("a", 1, 4), guest("b", 1, 3.8), current=[first],
                    memory="strict")["a"]  # fmt: skip
    assert first.memory is not None
    assert after.memory is not None
    assert (first.memory.mode, after.memory.mode) == ("strict", "move")
    assert after.why == first.why


def test_the_node_that_has_most_is_named() -> None:
    others = taken(0, 16, 24)
    said = why(machine(4), guest("a", 33), *others)
    assert said.startswith("not placed: it needs 33 free vCPUs; node 1 has the most (8)")


def test_how_full_nodes_would_be() -> None:
    made = planned(machine(), guest("a", 6), guest("b", 1, wishes={"memory": "none"}), current=[])
    assert made["b"].nodes == (1,)
    held = planned(machine(), guest("b", 1))["b"]
    assert held.nodes == (0,)
    then = planned(machine(), guest("a", 6), guest("b", 1), current=[held])
    assert then["a"].why == "node 1 rather than node 0: it would be 75 % full, not 88 %"
