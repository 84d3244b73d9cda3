# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `vm_blkio`: shares of I/O of guests, and of guests on single disks."""

from __future__ import annotations

from tuned_virt import registry
from tuned_virt.tuned_api import planned_plugin


class VmBlkioPlugin(planned_plugin.PlannedPlugin):  # type: ignore[misc]
    """
    `vm_blkio`::

    Weights of running guests' block I/O, as `virsh blkiotune --live` sets them.
    +
    [option]`devices` selects guests by name or UUID. A guest whose XML sets weights itself is
    not changed. Weights have an effect only where the disk's scheduler is `bfq`, or where the
    kernel's I/O cost model is enabled; verify says where neither is so.
    +
    .The databases get more of sda
    ====
    ----
    [vm_blkio]
    devices=db*
    blkio_weight=500
    device_weights=/dev/sda,800
    ----
    ====
    """

    tuner = registry.tuner("vm_blkio")
