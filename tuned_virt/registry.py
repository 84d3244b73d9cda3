# SPDX-License-Identifier: GPL-2.0-or-later
"""All tuners by name: what `tuned-virt restore` can put back without TuneD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tuned_virt.core.guest_source import GuestSource
from tuned_virt.core.tuner import Tuner
from tuned_virt.plugins.blk_elevator_virt import DisksTuner
from tuned_virt.plugins.blk_elevator_virt.guest_users import DiskUser
from tuned_virt.plugins.crash_guard import CrashGuardTuner
from tuned_virt.plugins.hugepages_numa import HugepagesTuner
from tuned_virt.plugins.hugepages_numa.demand import GuestPageRequest
from tuned_virt.plugins.ksm import KsmTuner
from tuned_virt.plugins.ksm.sampler import LibvirtGuest
from tuned_virt.plugins.virt_system import SystemTuner
from tuned_virt.plugins.vm_blkio import BlkioTuner
from tuned_virt.plugins.vm_blkio.plugin import GuestWeightsApi
from tuned_virt.plugins.vm_limits.restore import LimitsRestore
from tuned_virt.plugins.vm_pinning.restore import ConfigurationRestore, PinningRestore


def _follow_libvirt(changed: Callable[[str], None]) -> GuestSource[LibvirtGuest]:
    from tuned_virt.libvirt_api.follower import GuestFollower  # its binding takes time to import
    from tuned_virt.libvirt_api.running_guests import RunningGuestReader

    return GuestFollower(RunningGuestReader(), changed)


def _follow_pages(changed: Callable[[str], None]) -> GuestSource[GuestPageRequest]:
    from tuned_virt.libvirt_api.follower import GuestFollower
    from tuned_virt.libvirt_api.guest_pages import GuestPageReader

    return GuestFollower(GuestPageReader(), changed)


def _follow_disks(changed: Callable[[str], None]) -> GuestSource[DiskUser]:
    from tuned_virt.libvirt_api.follower import GuestFollower
    from tuned_virt.libvirt_api.guest_disks import GuestDiskReader

    return GuestFollower(GuestDiskReader(), changed)


def _weights() -> GuestWeightsApi:
    from tuned_virt.libvirt_api.guest_weights import GuestWeights

    return GuestWeights()


TUNERS: Mapping[str, Tuner[Any, Any]] = MappingProxyType(
    {
        tuner.name: tuner
        for tuner in (
            PinningRestore(),
            ConfigurationRestore(),
            LimitsRestore(),
            KsmTuner(_follow_libvirt),
            HugepagesTuner(_follow_pages),
            DisksTuner(_follow_disks),
            BlkioTuner(_weights),
            SystemTuner(),
            CrashGuardTuner(),
        )
    }
)
"""In the order of putting back: guests first, what TuneD's own plugins set last."""
