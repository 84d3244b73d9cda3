# SPDX-License-Identifier: GPL-2.0-or-later
"""The planner: keeps what holds, then places the rest, the hardest guests first.

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
from tuned_virt.placement.policy import PlacementPolicy

_sessions: tuple[PlanningRun, ...] = ()
"""The last two: one more guest on top of a thousand then does not cost what a thousand do. Only a
memory: the result is the same without."""


def plan(
    host: Host,
    guests: Iterable[Guest],
    policy: PlacementPolicy | Mapping[str, PlacementPolicy],
    current: Mapping[str, Placement],
) -> PlacementPlan:
    """Place the guests on the host.

    policy   for all, or by guest's UUID where selections differ; a guest in none is left alone
    current  our own placements that are in force, by UUID: those still valid stay as they are
    """
    global _sessions  # noqa: PLW0603 - a memory
    known = list(guests)
    after = PlanningRun(host, policy)
    before = next((one for one in _sessions if extend(one, after, known, current)), None)
    if before is None:
        after = PlanningRun(host, policy)
        after.prepare(known)
        after.place(current)
        before = _sessions[0] if _sessions else after
    _sessions = (after, before)
    return after.result.plan()
