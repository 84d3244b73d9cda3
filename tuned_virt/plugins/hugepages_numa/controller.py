# SPDX-License-Identifier: GPL-2.0-or-later
"""Goes on after an apply: pools grow as guests are defined and start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tuned_virt.core.engine import Finding
from tuned_virt.core.guest_source import GuestSource

if TYPE_CHECKING:
    from tuned_virt.libvirt_api.guest_pages import Asking


class PoolController:
    """Has the policy applied again when guests change.

    `follow` makes what tells of guests, and `use` is given it once it begins to.
    """

    def __init__(
        self,
        follow: Callable[[Callable[[str], None]], GuestSource[Asking]],
        replan: Callable[[], None],
        use: Callable[[GuestSource[Asking]], None],
    ) -> None:
        self._again = replan
        self._use = use
        self._source = follow(self._changed)

    def _changed(self, _reason: str) -> None:
        self._again()

    def start(self) -> None:
        """Begin to follow guests."""
        self._use(self._source)
        self._source.start()

    def stop(self) -> None:
        """End."""
        self._source.stop()

    def findings(self) -> Iterator[Finding]:
        """Nothing of its own: what the guests came to is in the plan."""
        yield from ()
