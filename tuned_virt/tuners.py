# SPDX-License-Identifier: GPL-2.0-or-later
"""All tuners by name: what `tuned-virt restore` can put back without TuneD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tuned_virt.blkio import BlkioTuner
from tuned_virt.blkio.tuner import Libvirt
from tuned_virt.disks import DisksTuner
from tuned_virt.disks.users import Guest as DiskUser
from tuned_virt.engine import Tuner
from tuned_virt.following import Follower
from tuned_virt.guard import GuardTuner
from tuned_virt.hugepages import HugepagesTuner
from tuned_virt.hugepages.demand import Asks
from tuned_virt.ksm import KsmTuner
from tuned_virt.ksm.sampler import LibvirtGuest
from tuned_virt.limits.undo import LimitsUndo
from tuned_virt.pinning.undo import ConfigurationUndo, PinningUndo
from tuned_virt.system import SystemTuner


def _follow_libvirt(changed: Callable[[str], None]) -> Follower[LibvirtGuest]:
    from tuned_virt.hypervisor import Hypervisor  # its binding takes time to import

    return Hypervisor(changed)


def _follow_pages(changed: Callable[[str], None]) -> Follower[Asks]:
    from tuned_virt.hypervisor.pages import PageFollower

    return PageFollower(changed)


def _follow_disks(changed: Callable[[str], None]) -> Follower[DiskUser]:
    from tuned_virt.hypervisor.disks import DiskFollower

    return DiskFollower(changed)


def _weights() -> Libvirt:
    from tuned_virt.hypervisor.weights import GuestWeights

    return GuestWeights()


TUNERS: Mapping[str, Tuner[Any, Any]] = MappingProxyType(
    {
        tuner.name: tuner
        for tuner in (
            PinningUndo(),
            ConfigurationUndo(),
            LimitsUndo(),
            KsmTuner(_follow_libvirt),
            HugepagesTuner(_follow_pages),
            DisksTuner(_follow_disks),
            BlkioTuner(_weights),
            SystemTuner(),
            GuardTuner(),
        )
    }
)
"""In the order of putting back: guests first, what TuneD's own plugins set last."""
