# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_limits as TuneD's plugin and `tuned-virt restore` see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.guests.manager import GuestController, GuestTuner
from tuned_virt.guests.originals import GuestOriginals
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.vm_limits import original, policy
from tuned_virt.plugins.vm_limits.controller import LimitsController
from tuned_virt.plugins.vm_limits.policy import LimitsPolicy


class LimitsTuner(GuestTuner[LimitsPolicy]):
    """Guests' limits, as the plugin `vm_limits` sets them."""

    name = original.PLUGIN
    options = policy.OPTIONS

    def parse(self, options: Mapping[str, str]) -> LimitsPolicy:
        """See `policy.parse`."""
        return policy.parse(options)

    def guests(self, uri: str) -> GuestController[LimitsPolicy]:
        """See `GuestTuner`."""
        return LimitsController(uri, KernelFS(), Originals(), Journal())

    def uris(self) -> Iterable[str]:
        """See `GuestTuner`."""
        return GuestOriginals(self.name, original.parse, Originals()).uris()
