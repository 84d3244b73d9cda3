# SPDX-License-Identifier: GPL-2.0-or-later
"""What an assignment takes from a host is given back whole."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.machines import GIB, guest, machine
from tuned_virt.placement import PlacementKind, parse
from tuned_virt.placement.assignment import release
from tuned_virt.placement.demand import demand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.node_capacity import NodeCapacity, NodeMemory
from tuned_virt.placement.place_guest import place_guest

HOST = machine(1)


def in_use(capacity: HostCapacity) -> tuple[Any, ...]:
    [node] = capacity.nodes
    return node.free_count, node.shared_count, node.load, capacity.memory.memory[0] / GIB


@pytest.mark.parametrize(
    ("options", "taken"),
    [({}, (8, 8, 3.0, 6.0)), ({"overcommit": "2"}, (8, 8, 1.5, 6.0)),
     ({"policy": "dedicated"}, (5, 5, 0.0, 6.0))],
)  # fmt: skip
def test_what_it_takes_and_gives_back(options: dict[str, str], taken: tuple[Any, ...]) -> None:
    capacity = HostCapacity(HOST, [NodeCapacity(HOST.grid.nodes[0], 0, 0, 0)], NodeMemory(HOST))
    assert in_use(capacity) == (8, 8, 0.0, 8.0)
    made = place_guest(capacity, demand(guest("a", 3, 2), parse(options), 2048))
    assert in_use(capacity) == taken
    capacity.unplaceable.add((PlacementKind.SHARED, "what had no room"))
    capacity.lacking[PlacementKind.DEDICATED, "what had no room"] = "why"
    release(capacity, made)
    assert in_use(capacity) == (8, 8, 0.0, 8.0)
    assert not capacity.unplaceable, "it may have room now"
    assert not capacity.lacking
