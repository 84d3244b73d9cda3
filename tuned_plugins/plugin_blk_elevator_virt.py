# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `blk_elevator_virt`: the I/O scheduler of each disk by how it is attached."""

from __future__ import annotations

from tuned_virt import registry
from tuned_virt.tuned_api import planned_plugin


class BlkElevatorVirtPlugin(planned_plugin.PlannedPlugin):  # type: ignore[misc]
    """
    `blk_elevator_virt`::

    The I/O scheduler of each disk, chosen by how the disk is attached and, on hosts, by whether it
    backs guests.
    +
    Each class of disks has an option that takes a scheduler's name, `keep`, or `queues`: `none` for
    a disk with several queues and `mq-deadline` for one with a single queue. `noop`, `deadline` and
    `cfq` are taken for what they are called today. [option]`role` says whose disks these are;
    `auto` finds out. What lies below LVM, md, multipath and partitions is what is set, once.
    Several sections with [option]`devices` or [option]`devices_udev_regex` have several policies.
    +
    `tuned-virt disks` shows each disk, its class, and why.
    +
    .Disks that back guests, but not sdb
    ====
    ----
    [blk_elevator_virt]
    devices=!sdb
    host_backing=mq-deadline
    ----
    ====
    """

    tuner = registry.tuner("blk_elevator_virt")
