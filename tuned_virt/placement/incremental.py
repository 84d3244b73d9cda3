# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan that only adds guests to the last one's begins where that ended.

What found no room before finds none now (but where all guests are placed, and the more there are,
the less each may ask), and what has its place keeps it, so only the new guests
are placed, and only placements change from whose nodes those have taken something.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from tuned_virt.model.guest import Guest, UserPins
from tuned_virt.placement.assignment import Assignment
from tuned_virt.placement.model import Placement
from tuned_virt.placement.place_guest import place_guests
from tuned_virt.placement.plan_from_assignments import DecidedPlacements, PlacementResult
from tuned_virt.placement.planning_run import PlanningRun, housekeeping, vcpus_per_cpu
from tuned_virt.placement.policy import PlacementPolicy


def extend(
    before: PlanningRun, after: PlanningRun, guests: list[Guest], current: Mapping[str, Placement]
) -> bool:
    """Make `after` of what `before` ended with; False where more has changed."""
    if after.host is not before.host or len(guests) < len(before.guests):
        return False
    new = _new(before, after, guests, current)
    if new is None or not _begun(before, after, new):
        return False
    _place(before, after)
    return True


def _new(
    before: PlanningRun, after: PlanningRun, guests: list[Guest], current: Mapping[str, Placement]
) -> list[Guest] | None:
    """The guests that were not there; None where others, or their placements, are not the same."""
    new = []
    one_policy = isinstance(after.policy, PlacementPolicy)
    if one_policy and after.policy != before.policy:
        return None
    for guest in guests:
        key = guest.key
        if key not in before.guests and key not in current:
            new.append(guest)
        elif before.guests.get(key) is not guest or not (
            one_policy or after.policy_of(guest) is before.policy_of(guest)
        ):
            return None
    if not all(_in_force(before, key, current.get(key)) for key in before.guests):
        return None
    return new if len(guests) - len(new) == len(before.guests) else None


def _in_force(before: PlanningRun, key: str, now: Placement | None) -> bool:
    """Whether a guest is where it was placed; one that is left alone need not be mentioned."""
    if now is None:
        return key in before.fixed or not before.assignments[key].vcpus_by_node
    return now is before.result.placements[key] or key in before.fixed


def _begun(before: PlanningRun, after: PlanningRun, new: list[Guest]) -> bool:
    after.sort_out(new)
    after.housekeeping = housekeeping(after.host, [*before.wanted, *after.wanted], [])
    said = after.fixed or after.warnings != list(after.host.notes)
    if said or after.housekeeping != before.housekeeping or not _counts_alike(before, after):
        return False
    if any(one.guest.resident or one.guest.owned != UserPins() for one in after.wanted):
        return False
    if any(not one.vcpus_by_node and one.shares for one in before.assignments.values()):
        return False
    capacity = before.capacity
    changes_all = capacity.uncapped and any(one.dedicated for one in after.wanted)
    if changes_all or (len(capacity.nodes) == 1 and capacity.owners_pin):
        return False
    return not any(one.policy.rebalance for one in (*before.wanted, *after.wanted))


def _counts_alike(before: PlanningRun, after: PlanningRun) -> bool:
    """Whether what is not ours to place counts as before, and no further cpuset is to be said."""
    together = [*before.wanted, *after.wanted]
    groups = [{one.guest.partition for one in some} for some in (before.wanted, together)]
    if after.host.cpusets and groups[0] != groups[1]:
        return False
    return not before.fixed or vcpus_per_cpu(before.wanted) == vcpus_per_cpu(together)


def _untouched(assignment: Assignment, nodes: Set[int], memory_nodes: Set[int]) -> bool:
    """Whether a guest and its emulator are on such nodes, and its memory on none of those."""
    return (
        assignment.vcpus_by_node.keys() <= nodes
        and not assignment.wanted.guest.iothreads
        and not any(share.node in memory_nodes for share in assignment.shares)
    )


def _place(before: PlanningRun, after: PlanningRun) -> None:
    after.capacity = before.capacity.copy()
    after.capacity.floating += sum(one.cpus for one in after.wanted)
    after.capacity.forget_floating()
    new = place_guests(after.capacity, after.wanted)
    after.assignments = {**before.assignments, **new}
    touched = {at for one in new.values() for at in one.vcpus_by_node}
    memory_nodes = {share.node for one in new.values() for share in one.shares}
    placed, now = before.assignments, before.result.placements
    retained = {key: now[key] for key, one in placed.items() if one.vcpus_by_node}
    others = {at for at, node in enumerate(after.capacity.nodes) if node.shared} - touched
    untouched = {key for key in retained if _untouched(placed[key], others, memory_nodes)}
    after.guests = {**before.guests, **after.guests}
    after.fixed = before.fixed
    after.wanted = [*before.wanted, *after.wanted]
    after.warnings = before.warnings
    loose = before.result.decided.loose
    decided = DecidedPlacements(
        after.assignments, after.fixed, after.warnings, retained, untouched, loose
    )
    after.result = PlacementResult(after.capacity, decided)
