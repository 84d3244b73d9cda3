# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal's entries of what TuneD's own plugins change.

They have changed nothing yet when the first section of ours is applied, so this waits until TuneD
has applied its profile. The values before are those that TuneD keeps to restore them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from tuned_virt.core.journal import TUNED, Journal
from tuned_virt.core.later import call_later
from tuned_virt.core.plan import Change
from tuned_virt.tuned_api import stock_values
from tuned_virt.tuned_api.stock_values import StockValue

PATIENCE = 120.0
"""Seconds in which TuneD has applied a profile; pools of huge pages take longer than any."""

log = logging.getLogger("tuned")


class StockJournal:
    """Of one profile: what its own plugins of TuneD's have changed, and what is put back."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()
        self._lock = threading.Lock()
        self._instances: list[Any] = []
        self._written: list[StockValue] = []

    def applying(self, instance: Any) -> None:
        """A section of ours is applied: if it is the first, the profile's values follow."""
        manager = stock_values.caller("tuned.units.manager")
        daemon = stock_values.caller("tuned.daemon.daemon")
        if manager is None or daemon is None or not stock_values.speaks_for_all(manager, instance):
            return
        self._instances = [one for one in manager.instances if not stock_values.is_ours(one)]
        applied: threading.Event = daemon._profile_applied
        deadline = time.monotonic() + PATIENCE

        def once() -> bool:
            if not applied.is_set():
                return time.monotonic() > deadline
            self.applied()
            return True

        call_later(once)

    def applied(self) -> None:
        """Write down what is no longer as it was before TuneD."""
        try:
            with self._lock:
                changed = list(_changed(stock_values.values(self._instances)))
                for one in changed:
                    self._add(one, one.original, one.found, f"set by TuneD's [{one.section}]")
                self._written = changed
        except Exception:
            log.exception("%s: internal error, please report it", TUNED)

    def unapplied(self) -> None:
        """Write down what TuneD has put back."""
        with self._lock:
            before = {one.name: one for one in self._written}
            for one in stock_values.values(self._instances) if before else ():
                was = before.get(one.name)
                if was is not None and one.found is not None and one.found != was.found:
                    self._add(one, was.found, one.found, "restored by TuneD")
            self._instances, self._written = [], []

    def _add(self, value: StockValue, before: str | None, after: str | None, why: str) -> None:
        self._journal.add(TUNED, Change(value.name, "", before, after, why))


def _changed(values: Iterable[StockValue]) -> Iterable[StockValue]:
    return (
        one
        for one in values
        if None not in (one.original, one.found)
        and str(one.original).split() != str(one.found).split()
    )
