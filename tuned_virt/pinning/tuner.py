# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_pinning as TuneD's plugin and `tuned-virt restore` see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuned_virt.baseline import Baseline
from tuned_virt.guestkeeping import Kept
from tuned_virt.guesttuner import Guests, GuestTuner
from tuned_virt.journal import Journal
from tuned_virt.kernelfs import KernelFS
from tuned_virt.pinning import neighbours, original, policy
from tuned_virt.pinning.guests import PinnedGuests
from tuned_virt.pinning.policy import PinningPolicy


class PinningTuner(GuestTuner[PinningPolicy]):
    """Guests' threads and memory, as the plugin `vm_pinning` places them."""

    name = original.PLUGIN
    options = policy.OPTIONS

    def parse(self, options: Mapping[str, str]) -> PinningPolicy:
        """See `policy.parse`."""
        return policy.parse(options)

    def guests(self, uri: str) -> Guests[PinningPolicy]:
        """See `GuestTuner`."""
        return PinnedGuests(uri, KernelFS(), Baseline(), Journal())

    def notes(self) -> Iterable[str]:
        """See `GuestTuner`."""
        return neighbours.notes(KernelFS())

    def uris(self) -> Iterable[str]:
        """See `GuestTuner`."""
        return Kept(self.name, original.parse, Baseline()).uris()
