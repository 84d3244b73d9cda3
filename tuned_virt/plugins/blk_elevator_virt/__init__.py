# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks: how each is attached, which I/O scheduler that calls for, and the way there and back.

classify     facts of sysfs → class        state      reading disks and their layers
backing      guests' files → block devices  guest_users  the guests that use each disk
file_systems mounts → block devices         zfs        pools → their members
storage      what something is on, as far as it is known
policy       what a profile may ask         planner    policy and disks → verdicts, plan
deciding_option  the option for a class
udev_events  events and properties          udev_rules our rules for the boot
conflicts    who else sets schedulers       boot_files units, rc.local, cron that do
writer       schedulers written side by side
policy_in_force  what `tuned-virt disks` reads of it, on tmpfs
plugin       all of it for the engine
"""

from __future__ import annotations

from tuned_virt.plugins.blk_elevator_virt.planner import DiskState, Verdict, decide, judge
from tuned_virt.plugins.blk_elevator_virt.plugin import DisksTuner
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy, parse

__all__ = ("DiskPolicy", "DiskState", "DisksTuner", "Verdict", "decide", "judge", "parse")
