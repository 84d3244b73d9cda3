# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt restore` for vm_limits: only libvirt can put limits back."""

from __future__ import annotations

from tuned_virt.guests.restore import GuestRestore
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.plugins.vm_limits import original, policy
from tuned_virt.plugins.vm_limits.controller import put_back
from tuned_virt.plugins.vm_limits.original import OriginalLimits


class LimitsRestore(GuestRestore[OriginalLimits]):
    """Puts back every guest that is kept."""

    name = original.PLUGIN
    options = policy.OPTIONS
    setting_names = policy.NAMES
    parse = staticmethod(policy.parse)
    original = staticmethod(original.parse)

    def put_back(self, view: GuestsView, fs: KernelFS, kept: OriginalLimits) -> str:
        """See `GuestRestore`."""
        active = view.guests.get(kept.uuid)
        if active is None or active.id != kept.id:
            return ""
        refused = put_back(view.connection, active, kept)
        return "; ".join(f"{what}: {why}" for what, why in refused.items())
