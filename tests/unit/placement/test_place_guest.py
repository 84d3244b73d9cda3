# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that find no room: what is noted of them, and what is advised."""

from __future__ import annotations

import pytest

from tests.unit.machines import GIB, guest, machine, planned
from tuned_virt.model.guest import Guest
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
