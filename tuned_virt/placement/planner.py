# SPDX-License-Identifier: GPL-2.0-or-later
"""The planner: retains what still holds, then places the rest, the hardest guests first.

It is a greedy search with exact parts: for each guest all nodes are compared, and for one that
fits in none, sets of nodes by branch and bound. What a guest is given only makes less room for the
next, so that a plan's own result, planned again, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement.incremental import extend
from tuned_virt.placement.model import Placement, PlacementPlan
from tuned_virt.placement.planning_run import PlanningRun
from tuned_virt.placement.policy import Policies


class Planner:
    """Plans again and again: one more guest on top of a thousand does not cost what a thousand do.

    It remembers its last two runs. The result is the same without.
    """

    def __init__(self) -> None:
        self._runs: tuple[PlanningRun, ...] = ()

    def plan(
        self,
        host: Host,
        guests: Iterable[Guest],
        policy: Policies,
        current: Mapping[str, Placement],
    ) -> PlacementPlan:
        """Place the guests on the host.

        current: our own placements that are in force, by UUID: those still valid stay as they are.
        """
        known = list(guests)
        after = PlanningRun(host, policy)
        before = next((one for one in self._runs if extend(one, after, known, current)), None)
        if before is None:
            after = PlanningRun(host, policy)
            after.prepare(known)
            after.place(current)
            before = self._runs[0] if self._runs else after
        self._runs = (after, before)
        return after.result.plan()


def plan(
    host: Host, guests: Iterable[Guest], policy: Policies, current: Mapping[str, Placement]
) -> PlacementPlan:
    """See `Planner.plan`, for who plans once."""
    return Planner().plan(host, guests, policy, current)
