# SPDX-License-Identifier: GPL-2.0-or-later
"""Goes on after an apply: pools grow as guests are defined and start."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tuned_virt.core.engine import Finding
from tuned_virt.core.guest_source import GuestSource
from tuned_virt.libvirt_api.guest_pages import Asking


class PoolController:
    """Follows guests while pools grow with them; `use` is given their source once it begins to."""

    def __init__(
        self, source: GuestSource[Asking], use: Callable[[GuestSource[Asking]], None]
    ) -> None:
        self._source = source
        self._use = use

    def start(self) -> None:
        """Begin to follow guests."""
        self._use(self._source)
        self._source.start()

    def stop(self) -> None:
        """End."""
        self._source.stop()

    def findings(self) -> Iterable[Finding]:
        """Nothing of its own: what the guests came to is in the plan."""
        return ()
