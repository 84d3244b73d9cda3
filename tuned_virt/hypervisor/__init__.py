# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt: running guests followed, and guests tuned, without ever waiting for libvirt.

This package alone imports libvirt, which hosts may lack. `Hypervisor` follows guests read-only;
`control` holds the one connection that tunes them.
"""

from __future__ import annotations

from tuned_virt.hypervisor.binding import SYSTEM, missing
from tuned_virt.hypervisor.follower import Hypervisor, running_guests
from tuned_virt.hypervisor.running import RunningGuest, difference, shares_pages

__all__ = [
    "SYSTEM",
    "Hypervisor",
    "RunningGuest",
    "difference",
    "missing",
    "running_guests",
    "shares_pages",
]
