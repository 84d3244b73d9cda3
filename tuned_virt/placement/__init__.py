# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests × host → placements. Pure: no libvirt, no clock, no randomness.

`plan` decides; `parse` reads a profile's options into the `PlacementPolicy` that it decides by.
"""

from tuned_virt.placement.model import MemoryPlacement, Placement, PlacementKind, PlacementPlan
from tuned_virt.placement.planner import plan
from tuned_virt.placement.policy import (
    OPTIONS,
    PlacementMode,
    PlacementPolicy,
    changed,
    parse,
    policy_for,
)

__all__ = [
    "OPTIONS",
    "MemoryPlacement",
    "Placement",
    "PlacementKind",
    "PlacementMode",
    "PlacementPlan",
    "PlacementPolicy",
    "changed",
    "parse",
    "plan",
    "policy_for",
]
