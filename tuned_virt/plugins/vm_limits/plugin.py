# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_limits as TuneD's plugin and `tuned-virt restore` see it."""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import shared_originals
from tuned_virt.guests.manager import GuestController, GuestTuner
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.plugins.vm_limits import original, policy
from tuned_virt.plugins.vm_limits.original import OriginalLimits
from tuned_virt.plugins.vm_limits.policy import LimitsPolicy


class LimitsTuner(GuestTuner[LimitsPolicy, OriginalLimits]):
    """Guests' limits, as the plugin `vm_limits` sets them."""

    name = original.PLUGIN
    options = policy.OPTIONS
    setting_names = policy.NAMES
    parse = staticmethod(policy.parse)
    original = staticmethod(original.parse)

    def guests(self, uri: str) -> GuestController[LimitsPolicy]:
        """See `GuestTuner`."""
        from tuned_virt.plugins.vm_limits.controller import LimitsController

        return LimitsController(uri, KernelFS(), shared_originals(), Journal())

    def put_back_run(
        self, link: Connection, active: Domain, fs: KernelFS, kept: OriginalLimits
    ) -> Mapping[str, str]:
        """See `GuestTuner`."""
        from tuned_virt.plugins.vm_limits.controller import put_back

        return put_back(link, active, kept)
