# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves of guests that are placed already, only where the policy asks for some."""

from __future__ import annotations

from collections.abc import MutableMapping

from tuned_virt.placement.assignment import Assignment, release, reserve
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import Placement
from tuned_virt.placement.place import place_guest

GOOD = (False, 1, 0)
"""The cost of a place that no other can better: as wished, on one node, next to its devices."""


def move(
    host_capacity: HostCapacity,
    assignments: MutableMapping[str, Assignment],
    kept: MutableMapping[str, Placement],
) -> None:
    """Move at most as many kept guests as `rebalance` says, each time the one that gains most.

    Only guests that are split, far from their devices, or float though they should be dedicated
    can gain; memory that cannot move stays.
    """
    moves = max((one.wanted.policy.rebalance for one in assignments.values()), default=0)
    for _ in range(moves):
        gains = [
            (_after(host_capacity, assignments[key]), key)
            for key in sorted(kept)
            if _may_gain(host_capacity, assignments[key])
        ]
        better = [
            (cost, key) for cost, key in gains if cost < _cost(host_capacity, assignments[key])
        ]
        if not better:
            return
        key = min(better)[1]
        release(host_capacity, assignments[key])
        assignments[key] = place_guest(host_capacity, assignments[key].wanted)
        assignments[key].why = f"moved to a better place: {assignments[key].why}"
        del kept[key]


def _may_gain(host_capacity: HostCapacity, assignment: Assignment) -> bool:
    guest = assignment.wanted.guest
    return (
        assignment.wanted.policy.rebalance > 0
        and (guest.movable or not guest.resident)
        and _cost(host_capacity, assignment) > GOOD
    )


def _cost(host_capacity: HostCapacity, assignment: Assignment) -> tuple[bool, int, int]:
    """Smaller is better: not as wished, nodes spanned, distance of devices."""
    guest = assignment.wanted.guest
    far = sum(
        host_capacity.device_distance(guest, node_index) for node_index in assignment.vcpus_by_node
    )
    as_wished = (
        bool(assignment.vcpus_by_node) and assignment.dedicated == assignment.wanted.dedicated
    )
    return not as_wished, len(assignment.vcpus_by_node), far


def _after(host_capacity: HostCapacity, assignment: Assignment) -> tuple[bool, int, int]:
    """The cost of the place that it would be given now; the board is left as it was."""
    release(host_capacity, assignment)
    trial = place_guest(host_capacity, assignment.wanted)
    cost = _cost(host_capacity, trial)
    release(host_capacity, trial)
    reserve(host_capacity, assignment)
    return cost
