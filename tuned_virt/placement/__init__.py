# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests × host → placements. Pure: no libvirt, no clock, no randomness.

`plan` decides; `parse` reads a profile's options into the `Policy` that it decides by.
"""

from tuned_virt.placement.model import Kind, Memory, Placement, Plan
from tuned_virt.placement.planner import plan
from tuned_virt.placement.policy import OPTIONS, Mode, Policy, changed, parse, policy_for

__all__ = [
    "OPTIONS",
    "Kind",
    "Memory",
    "Mode",
    "Placement",
    "Plan",
    "Policy",
    "changed",
    "parse",
    "plan",
    "policy_for",
]
