# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves of guests that are placed already, only where the policy asks for some."""

from __future__ import annotations

from collections.abc import MutableMapping

from tuned_virt.placement.assignment import Assignment, release, reserve
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.model import Placement
from tuned_virt.placement.place_guest import floating, place_guest

GOOD = (False, 1, False, 0)
"""The least cost: as asked, on one node that is not crowded, next to its devices."""

NOTHING = (0, 0, 0, 0)
"""The gain of a move to a place of the same cost."""


def move(
    capacity: HostCapacity,
    assignments: MutableMapping[str, Assignment],
    retained: MutableMapping[str, Placement],
) -> None:
    """Move at most as many retained guests as `rebalance` says, each time the one that gains most.

    Only guests that are split, on a crowded node, far from their devices, or float though they
    should be dedicated can gain; memory that cannot move stays.
    """
    moves = max((one.wanted.policy.rebalance for one in assignments.values()), default=0)
    for _ in range(moves):
        able = [key for key in sorted(retained) if _may_gain(capacity, assignments[key])]
        gains = {key: _gain(capacity, assignments[key]) for key in able}
        key = max(gains, key=gains.__getitem__, default="")
        if not key or gains[key] <= NOTHING:
            return
        release(capacity, assignments[key])
        assignments[key] = place_guest(capacity, assignments[key].wanted)
        assignments[key].why = f"moved to a better place: {assignments[key].why}"
        del retained[key]


def _may_gain(capacity: HostCapacity, assignment: Assignment) -> bool:
    guest = assignment.wanted.guest
    return (
        assignment.wanted.policy.rebalance > 0
        and (guest.movable or not guest.resident)
        and _cost(capacity, assignment) > GOOD
    )


def _cost(capacity: HostCapacity, assignment: Assignment) -> tuple[bool, int, bool, int]:
    """Smaller is better: not as asked, nodes spanned, one of them crowded, distance of devices."""
    nodes, wanted = assignment.vcpus_by_node, assignment.wanted
    far = sum(capacity.device_distance(wanted.guest, node_index) for node_index in nodes)
    as_asked = bool(nodes) and assignment.dedicated == wanted.dedicated
    return not as_asked, len(nodes), _crowded(capacity, assignment), far


def _crowded(capacity: HostCapacity, assignment: Assignment) -> bool:
    if assignment.dedicated:
        return False
    way = floating(capacity.within(assignment.wanted.guest), assignment.wanted)
    return any(map(way.crowded, assignment.vcpus_by_node))


def _gain(capacity: HostCapacity, assignment: Assignment) -> tuple[int, ...]:
    """By how much the place that it would be given now is better; the host is left as it was."""
    before = _cost(capacity, assignment)
    release(capacity, assignment)
    trial = place_guest(capacity, assignment.wanted)
    after = _cost(capacity, trial)
    release(capacity, trial)
    reserve(capacity, assignment)
    return tuple(was - is_now for was, is_now in zip(before, after))
