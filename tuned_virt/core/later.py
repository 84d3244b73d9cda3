# SPDX-License-Identifier: GPL-2.0-or-later
"""What TuneD need not wait for: done a moment later, by one thread of the process for all of it.

A thread that is started while TuneD applies a profile costs it a tenth of a millisecond, and takes
the interpreter from it as soon as it works.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tuned_virt.kernel import threads, timeouts

log = logging.getLogger("tuned")

Step = Callable[[], bool]
"""Does what is to be done, quickly; False if it cannot be done yet."""


class Later:
    """Steps that wait. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Step] = []
        self._threaded = False

    def call(self, step: Step) -> None:
        """Have a step done in a moment, and tried again each moment until it is."""
        with self._lock:
            self._waiting.append(step)
            if self._threaded:
                return
            self._threaded = True
        try:
            threads.start(self._work, "virt-later")
        except threads.NoThreadError as error:
            self._threaded = False
            log.warning("%s; what waits is done with what is to be done next", error)

    def _work(self) -> None:
        """Until no step waits."""
        while True:
            time.sleep(timeouts.LATER)
            with self._lock:
                steps, self._waiting = self._waiting, []
            again = [step for step in steps if not _done(step)]
            with self._lock:
                self._waiting += again
                if not self._waiting:
                    self._threaded = False
                    return


def _done(step: Step) -> bool:
    """The result of a step. The thread must live: any error is only said."""
    try:
        return step()
    except Exception:
        log.exception("virt-later: internal error, please report it")
        return True


_process = Later()

call_later = _process.call
"""For the whole process."""
