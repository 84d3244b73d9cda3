# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD plugin `vm_pinning`: guests' vCPUs, emulator, IOThreads and memory on NUMA nodes."""

from __future__ import annotations

from tuned_virt.plugins.vm_pinning import plugin
from tuned_virt.tuned_api import guest_plugin


class VmPinningPlugin(guest_plugin.GuestPlugin):  # type: ignore[misc]
    """
    `vm_pinning`::

    Places guests of libvirt as they start: each on one NUMA node where it fits, its emulator thread
    and IOThreads beside it, its memory brought along in small batches. Guests are the plugin's
    devices: the option [option]`devices` selects them by name or UUID, and several sections may
    have several policies.
    +
    With [option]`policy` `node`, the default, vCPUs float inside the node; with `dedicated` each
    has a CPU of its own where there is room. What the owner of a guest has pinned is never changed,
    nor are guests of Nova, oVirt and KubeVirt. Guests that ran before the profile came are confined
    to the node that holds most of their memory, if one does ([option]`running`).
    +
    .Dedicated CPUs for databases, all else inside a node
    ====
    ----
    [databases]
    type=vm_pinning
    priority=-1
    devices=db*
    policy=dedicated
    smt=isolate

    [vm_pinning]
    overcommit=4
    ----
    ====
    """

    tuner = plugin.PinningTuner()
