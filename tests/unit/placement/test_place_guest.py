# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that find no room: what is noted of them, and what is advised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.machines import GIB, guest, machine, planned
from tuned_virt.model.guest import CpuTopology, Guest
from tuned_virt.placement import PlacementKind, PlacementPolicy
from tuned_virt.placement.demand import demand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.node_capacity import NodeCapacity, NodeMemory
from tuned_virt.placement.place_guest import place_guest

HOST = machine(1)


def test_a_guest_without_room_has_no_place_and_its_memory_counts_where_it_is() -> None:
    capacity = HostCapacity(HOST, [NodeCapacity(HOST.grid.nodes[0], 0, 0, 0)], NodeMemory(HOST))
    large = guest("a", 9, 2, resident={0: 3 * GIB})
    made = place_guest(capacity, demand(large, PlacementPolicy(overcommit=1), 2048))
    assert (made.kind, made.why, made.vcpus_by_node) == (PlacementKind.UNPLACED, "", {})
    assert capacity.memory.memory[0] == 5 * GIB


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (
            guest("a", 17, 1),
            "it needs 17 free vCPUs; node 0 has the most (8). Raise vm_overcommit (now 1)",
        ),
        (guest("a", 8, 20), "no node with 8 free vCPUs has 20.0 GiB of memory for it"),
    ],
)
def test_more_overcommit_is_advised_only_where_it_helps(made: Guest, why: str) -> None:
    assert planned(machine(2), made)["a"].why == f"not placed: {why}"


def test_memory_that_is_not_ours_counts_where_the_vcpus_are() -> None:
    """It fits in no node, and the other one keeps what it has for the next guest."""
    wide = guest("a", 1, 3, wishes={"memory": "none"})
    made = planned(machine(2, gib=2), wide, guest("b", 1, 1))
    assert (made["a"].nodes, made["a"].memory) == ((0,), None)
    assert made["b"].memory is not None
    assert (made["b"].nodes, made["b"].memory.nodeset) == ((1,), "1")


WIDE = guest("wide", 4, topology=CpuTopology(cores=2, threads=2))
"""For whom a node of two cores has no CPUs of their own beside housekeeping."""


def test_a_guest_that_cannot_be_dedicated_floats_where_those_that_can_leave_cpus() -> None:
    """It is the hardest to place, and still they come first: they would take CPUs from under it."""
    host = machine(2, 2, 2, llcs=1)
    cpus = {cpu: replace(one, siblings=one.siblings - {0}) for cpu, one in host.cpus.items() if cpu}
    host = replace(host, cpus=cpus, offline=frozenset({0}), isolated=frozenset({1}))
    auto: dict[str, Any] = {"policy": "dedicated", "overcommit": "auto"}
    own = [guest(f"own{number}", 1) for number in range(3)]
    made = planned(host, WIDE, *own, **auto)
    assert [made[one.name].vcpus for one in own] == [{0: "1"}, {0: "6"}, {0: "7"}]
    assert made["wide"].nodes == (0, 1)
    assert planned(host, WIDE, *own, current=made.values(), **auto) == made


def test_it_is_first_where_its_cpus_may_not_be_taken() -> None:
    """With overcommit=1 it would else be left alone, and run on the CPUs of those."""
    made = planned(
        machine(2, 2, 2, llcs=1), WIDE, guest("own", 2), policy="dedicated", smt="isolate"
    )
    assert {name: one.kind for name, one in made.items()} == {
        "wide": PlacementKind.SHARED,
        "own": PlacementKind.SHARED,
    }


def test_nodes_of_a_guest_that_floats_over_all_are_those_that_are_left() -> None:
    """Node 0 is all taken: housekeeping is on node 1."""
    made = planned(
        machine(2, 1, 2, llcs=1), guest("huge", 9), guest("own", 2),
        policy="dedicated", overcommit="auto", housekeeping="2-3",
    )  # fmt: skip
    assert made["own"].vcpus == {0: "0", 1: "1"}
    assert (made["huge"].nodes, set(made["huge"].vcpus.values())) == ((1,), {"2-3"})


def test_guests_alike_that_ask_for_other_things_are_told_what_they_lack() -> None:
    """And only that: which of them is told first does not matter."""
    made = planned(
        machine(1), guest("a", 9), guest("b", 9, wishes={"policy": "dedicated"}), guest("c", 9)
    )
    lacks = "it needs 9 free vCPUs; node 0 has the most (8). Raise vm_overcommit (now 1)"
    assert made["a"].why == made["c"].why == f"not placed: {lacks}"
    dedicated = "it needs 9 CPUs that can be dedicated; node 0 has the most (6)"
    assert made["b"].why == f"not placed: {dedicated}; {lacks}"
