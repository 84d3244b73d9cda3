# SPDX-License-Identifier: GPL-2.0-or-later
"""Goes on after an apply: pools follow guests, and nodes whose memory comes later."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from tuned_virt.core.engine import Finding
from tuned_virt.core.guest_source import EventSource, GuestSource
from tuned_virt.core.replan_trigger import ReplanTrigger
from tuned_virt.core.tuner import Replan
from tuned_virt.libvirt_api.guest_pages import Asking


class PoolController:
    """Has pools planned again as guests change, and once more `delay` seconds after the last change
    where pages are given back then; and as memory comes online or goes."""

    def __init__(
        self,
        replan: Replan,
        guests: GuestSource[Asking] | None,
        delay: int | None = None,
        nodes: EventSource | None = None,
    ) -> None:
        self._guests = guests
        self._replan = replan
        self._delay = delay
        self._later: threading.Timer | None = None
        self._nodes = ReplanTrigger("hugepages_numa", replan)
        if nodes is not None:
            self._nodes.follow(nodes)

    def start(self) -> None:
        """Begin to follow."""
        self._nodes.start()
        if self._guests is not None:
            self._guests.start(self._changed)
            self._schedule()

    def stop(self) -> None:
        """End."""
        self._nodes.stop()
        if self._guests is not None:
            self._guests.stop()
        self._delay = None
        if self._later is not None:
            self._later.cancel()

    def findings(self) -> Iterable[Finding]:
        """What keeps it from following; what the guests came to is in the plan."""
        return self._nodes.findings()

    def _changed(self, _reason: str) -> None:
        self._schedule()
        self._replan()

    def _schedule(self) -> None:
        """Look again when what was asked for before no longer counts."""
        if self._delay is None:
            return
        if self._later is not None:
            self._later.cancel()
        self._later = threading.Timer(self._delay + 1, self._replan)
        self._later.daemon = True
        self._later.start()
