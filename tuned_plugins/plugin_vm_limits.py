# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `vm_limits`: guests' memory limits and CPU weight."""

from __future__ import annotations

from tuned_virt.plugins.vm_limits import plugin
from tuned_virt.tuned_api import guest_plugin


class VmLimitsPlugin(guest_plugin.GuestPlugin):  # type: ignore[misc]
    """
    `vm_limits`::

    Sets memory limits and the CPU weight of running guests, and puts them back. None is set unless
    an option asks for it; what a guest's owner limits stays the owner's. A hard limit under what
    the guest needs, a swap limit under the hard limit, and `min_guarantee`, which QEMU has not, are
    refused. Guests are the plugin's devices.
    +
    .Test guests give way to others
    ====
    ----
    [vm_limits]
    devices=test*
    cpu_shares=256
    memory_soft_limit=50%
    ----
    ====
    """

    tuner = plugin.LimitsTuner()
