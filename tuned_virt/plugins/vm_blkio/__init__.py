# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests' block I/O weights, the guide's chapter 7: `virsh blkiotune` by selections of guests.

policy  what a profile may ask    planner  policy and guests → plan    plugin  for the engine
"""

from __future__ import annotations

from tuned_virt.plugins.vm_blkio.planner import WeightState, decide
from tuned_virt.plugins.vm_blkio.plugin import BlkioTuner
from tuned_virt.plugins.vm_blkio.policy import WeightPolicy, parse

__all__ = ("BlkioTuner", "WeightPolicy", "WeightState", "decide", "parse")
