"""The planner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuned_virt.guest import Guest
from tuned_virt.placement.model import Placement, Plan
from tuned_virt.placement.policy import Policy
from tuned_virt.topology import Host


def plan(
    host: Host,
    guests: Iterable[Guest],
    policy: Policy | Mapping[str, Policy],
    current: Mapping[str, Placement],
) -> Plan:
    """Place the guests on the host.

    policy   for all, or by guest's UUID where selections differ; a guest in none is left alone
    current  our own placements that are in force, by UUID: those still valid stay as they are
    """
    raise NotImplementedError
