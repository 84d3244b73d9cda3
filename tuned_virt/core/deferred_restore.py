# SPDX-License-Identifier: GPL-2.0-or-later
"""A restore that waits for the apply that is expected next, and is dropped when that comes."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

from tuned_virt.kernel import threads, timeouts


class DeferredRestore:
    """One restore at a time waits. All its methods may be called from any thread.

    `restore` is called in a thread of its own, or at the process's end in the one that ends it.
    """

    def __init__(self, name: str, restore: Callable[[], None]) -> None:
        self._name = f"virt-{name}-later"
        self._restore = restore
        self._lock = threading.Lock()
        self._ticket: object | None = None
        atexit.register(self.flush)

    def schedule(
        self, sooner: threading.Event | None = None, seconds: float = timeouts.NEXT_APPLY
    ) -> None:
        """Restore after `seconds`, or once an event is set, unless it is cancelled before.

        Raises NoThreadError, and nothing waits then.
        """
        ticket = self._ticket = object()
        due = sooner or threading.Event()

        def wait() -> None:
            due.wait(seconds)
            if self._ticket is ticket:
                self.flush()

        try:
            threads.start(wait, self._name)
        except threads.NoThreadError:
            self._ticket = None
            raise

    def cancel(self) -> bool:
        """Whether a restore waited, which is dropped."""
        with self._lock:
            waited, self._ticket = self._ticket is not None, None
        return waited

    def flush(self) -> None:
        """Do now what waits."""
        if self.cancel():
            self._restore()
