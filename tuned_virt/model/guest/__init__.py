# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as others describe them: what a domain's XML asks for, and their text made harmless."""

from tuned_virt.model.guest.hardware import AUDIT_NAMESPACE, Hardware, VirtualDisk, VirtualNic
from tuned_virt.model.guest.model import (
    PLACEMENT_NAMESPACE,
    POLICY_NAMESPACE,
    Cell,
    CpuTopology,
    Guest,
    GuestError,
    HugePages,
    MemoryDevice,
    UserPins,
)
from tuned_virt.model.guest.reader import domain_type, read_guest, read_whole
from tuned_virt.model.guest.text import printable

__all__ = [
    "AUDIT_NAMESPACE",
    "PLACEMENT_NAMESPACE",
    "POLICY_NAMESPACE",
    "Cell",
    "CpuTopology",
    "Guest",
    "GuestError",
    "Hardware",
    "HugePages",
    "MemoryDevice",
    "UserPins",
    "VirtualDisk",
    "VirtualNic",
    "domain_type",
    "printable",
    "read_guest",
    "read_whole",
]
