# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests have asked for lately: pages are given back once nobody has for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tuned_virt.plugins.hugepages_numa.setting_types import Pages, PoolSetting


class DemandHistory:
    """Pages by pool as they were asked for, each until the next."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: list[tuple[float, Pages]] = []

    def most(self, asked: Pages | None, delay: float) -> Pages | None:
        """By pool the most that was asked for in the last `delay` seconds, what is asked now
        included; None (also for `asked`) where that is not known, or not for so long."""
        with self._lock:
            return self._most(asked, self._clock(), delay)

    def _most(self, asked: Pages | None, now: float, delay: float) -> Pages | None:
        if asked is None:
            self._asked = []
            return None
        if not self._asked or self._asked[-1][1] != asked:
            self._asked.append((now, asked))
        while len(self._asked) > 1 and self._asked[1][0] <= now - delay:
            del self._asked[0]
        if self._asked[0][0] > now - delay:
            return None
        most: dict[PoolSetting, int] = {}
        for _, pages in self._asked:
            for pool, count in pages.items():
                most[pool] = max(count, most.get(pool, 0))
        return most
