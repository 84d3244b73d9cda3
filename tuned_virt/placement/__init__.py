# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests × host → placements. Pure: no libvirt, no clock, no randomness.

`Planner` decides, and `plan` for who plans once; `parse` reads a profile's options into the
`PlacementPolicy` that they decide by.
"""

from tuned_virt.placement.model import (
    WALLS,
    MemoryPlacement,
    Placement,
    PlacementKind,
    PlacementPlan,
    unplaced,
)
from tuned_virt.placement.planner import Planner, plan
from tuned_virt.placement.policy import (
    OPTIONS,
    PlacementMode,
    PlacementPolicy,
    changed,
    of_group,
    parse,
    policy_for,
)
from tuned_virt.placement.residents import for_guests

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
]
