# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning as TuneD's plugin and `tuned-virt restore` see it."""

from __future__ import annotations

from collections.abc import Iterable

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.guests.manager import GuestController, GuestTuner
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.vm_pinning import conflicts, original, policy
from tuned_virt.plugins.vm_pinning.controller import PinningController
from tuned_virt.plugins.vm_pinning.policy import PinningPolicy


class PinningTuner(GuestTuner[PinningPolicy]):
    """Guests' threads and memory, as the plugin `vm_pinning` places them."""

    name = original.PLUGIN
    options = policy.OPTIONS
    setting_names = policy.NAMES
    parse = staticmethod(policy.parse)
    original = staticmethod(original.parse)

    def guests(self, uri: str) -> GuestController[PinningPolicy]:
        """See `GuestTuner`."""
        return PinningController(uri, KernelFS(), Originals(), Journal())

    def notes(self) -> Iterable[str]:
        """See `GuestTuner`."""
        return conflicts.notes(KernelFS())
