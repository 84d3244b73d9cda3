# SPDX-License-Identifier: GPL-2.0-or-later
"""Waits for events of others in a thread, and calls back once they have settled."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Callable, Iterable

from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.guest_source import EventSource
from tuned_virt.kernel import threads

log = logging.getLogger("tuned")

SETTLE = 0.5
"""Seconds without an event after which the call comes."""

LONGEST = 5.0
"""Seconds of events after which it comes anyhow."""


class ReplanTrigger:
    """Calls `replan` after events: the controller of a policy that is planned as a whole."""

    def __init__(self, name: str, replan: Callable[[], None]) -> None:
        self._name = name
        self._replan = replan
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._sources: list[EventSource] = []

    def follow(self, source: EventSource) -> None:
        """Have a source started and stopped with this."""
        self._sources.append(source)

    def start(self) -> None:
        """Begin to watch. Raises NoThreadError."""
        threads.start(self._work, f"virt-{self._name}-watch")
        for source in self._sources:
            source.start(self.wake)

    def stop(self) -> None:
        """End; nothing is called back afterwards but what has begun."""
        self._events.put(None)
        for source in self._sources:
            source.stop()

    def findings(self) -> Iterable[Finding]:
        """What keeps a source from telling."""
        troubles = [getattr(source, "trouble", "") for source in self._sources]
        return [Finding(Result.NOTE, f"{self._name}: {text}") for text in troubles if text]

    def wake(self, event: str) -> None:
        """Look again, soon."""
        self._events.put(event)

    def _work(self) -> None:
        while True:
            event = self._events.get()
            if event is None or not self._settled():
                return
            log.debug("%s: planning again: %s", self._name, event)
            self._replan()

    def _settled(self) -> bool:
        """Wait until no event comes for a while; False once it is to end."""
        for _ in range(max(1, int(LONGEST / SETTLE))):
            try:
                event = self._events.get(timeout=SETTLE)
            except queue.Empty:
                return True
            with contextlib.suppress(queue.Empty):
                while event is not None:
                    event = self._events.get_nowait()
            if event is None:
                return False
        return True
