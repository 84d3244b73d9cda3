# SPDX-License-Identifier: GPL-2.0-or-later
"""What the fleet's tests play: a profile that touches its own host only, and its settings."""

from __future__ import annotations

from typing import Any

from tests.fleet.hosts import ARP_FILTER

OWN = f"""
[main]
summary=What one host of several on this kernel can have for itself
[variables]
include=/etc/tuned/virtual-guest-plus-variables.conf
[sysctl]
{ARP_FILTER}=${{arp_filter}}
"""

GUESTS = """
[main]
summary=Places guests, and leaves the kernel's settings alone
[vm_pinning]
settings=/etc/tuned/virtual-host-plus-variables.conf
defaults=/usr/lib/tuned/virtual-host-plus/defaults.conf
"""

REFUSED = "f=/proc/sys/net/ipv4/conf/all/arp_filter; mount --bind -o ro $f $f"
"""Has a host's kernel refuse the value."""

BEFORE = "[main]\nsummary=What was active before\n"

PROFILES = {"before": BEFORE, "own": OWN, "guests": GUESTS}

ROLE = """
- name: As the README has it
  hosts: all
  gather_facts: false
  roles:
    - role: tuned_virt.plus.tuned_virt
"""

ROLLOUT, REPORT = "tuned_virt.plus.rollout", "tuned_virt.plus.report"

SETTINGS = "/etc/tuned/virtual-guest-plus-variables.conf"


def guest(**settings: Any) -> dict[str, Any]:
    """A host's variables."""
    return {
        "tuned_virt_kind": "guest",
        "tuned_virt_install": "none",
        "tuned_virt_profiles": ["own"],
        "tuned_virt_settings": settings,
        "tuned_virt_verify_retries": 1,
        "tuned_virt_verify_delay": 1,
    }


def host(**settings: Any) -> dict[str, Any]:
    """The same of a host of guests."""
    return {**guest(**settings), "tuned_virt_kind": "host", "tuned_virt_profiles": ["guests"]}
