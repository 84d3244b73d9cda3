# SPDX-License-Identifier: GPL-2.0-or-later
"""Goes on after an apply: pools grow as guests are defined and start."""

from __future__ import annotations

from collections.abc import Iterable

from tuned_virt.core.engine import Finding
from tuned_virt.core.guest_source import GuestSource
from tuned_virt.core.tuner import Replan
from tuned_virt.libvirt_api.guest_pages import Asking


class PoolController:
    """Follows guests, and has pools planned again as they change."""

    def __init__(self, guests: GuestSource[Asking], replan: Replan) -> None:
        self._guests = guests
        self._replan = replan

    def start(self) -> None:
        """Begin to follow guests."""
        self._guests.start(lambda _reason: self._replan())

    def stop(self) -> None:
        """End."""
        self._guests.stop()

    def findings(self) -> Iterable[Finding]:
        """Nothing of its own: what the guests came to is in the plan."""
        return ()
