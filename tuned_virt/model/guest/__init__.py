# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as others describe them: what a domain's XML asks for, and their text made harmless."""

from tuned_virt.model.guest.model import (
    PLACEMENT_NAMESPACE,
    POLICY_NAMESPACE,
    Cell,
    CpuTopology,
    Guest,
    GuestError,
    HugePages,
    UserPins,
)
from tuned_virt.model.guest.reader import read_guest
from tuned_virt.model.guest.text import printable

__all__ = [
    "PLACEMENT_NAMESPACE",
    "POLICY_NAMESPACE",
    "Cell",
    "CpuTopology",
    "Guest",
    "GuestError",
    "HugePages",
    "UserPins",
    "printable",
    "read_guest",
]
