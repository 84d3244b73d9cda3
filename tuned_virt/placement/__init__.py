# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests × host → placements. Pure: no libvirt, no clock, no randomness.

`Planner` decides, and `plan` for who plans once; `parse` reads a profile's options into the
`PlacementPolicy` that they decide by.
"""

from typing import TYPE_CHECKING, Any

from tuned_virt.placement.model import (
    WALLS,
    MemoryPlacement,
    Placement,
    PlacementKind,
    PlacementPlan,
    unplaced,
)
from tuned_virt.placement.policy import (
    OPTIONS,
    PlacementMode,
    PlacementPolicy,
    changed,
    of_group,
    parse,
    policy_for,
    unselected,
)

if TYPE_CHECKING:
    from tuned_virt.placement.planner import Planner, plan
    from tuned_virt.placement.residents import for_guests
else:

    def __getattr__(name: str) -> Any:
        """What plans, which is imported once somebody plans: TuneD reads options without it."""
        if name == "for_guests":
            from tuned_virt.placement.residents import for_guests

            return for_guests
        if name in ("Planner", "plan"):
            from tuned_virt.placement.planner import Planner, plan

            return {"Planner": Planner, "plan": plan}[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "OPTIONS",
    "WALLS",
    "MemoryPlacement",
    "Placement",
    "PlacementKind",
    "PlacementMode",
    "PlacementPlan",
    "PlacementPolicy",
    "Planner",
    "changed",
    "for_guests",
    "of_group",
    "parse",
    "plan",
    "policy_for",
    "unplaced",
    "unselected",
]
