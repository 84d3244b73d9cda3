# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs side by side in threads, for what waits for the kernel; no hanging one holds up the rest."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from tuned_virt.kernel import threads

T = TypeVar("T")

ROUNDS = 3
"""How often threads that all hang are replaced by others, so that one run ends in any case."""


class KeyedWorkerPool:
    """One job at a time for each key: one that hangs keeps its key busy until it ends.

    `patience` is in seconds without any job ending.
    """

    def __init__(self, name: str, threads: int, patience: float) -> None:
        self.patience = patience
        self._name = name
        self._threads = threads
        self._busy: set[str] = set()
        self._changed = threading.Condition()

    @property
    def busy(self) -> frozenset[str]:
        """Keys whose last job has not ended."""
        with self._changed:
            return frozenset(self._busy)

    def run(self, jobs: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """Results by key; a key that is, or stays, busy has none. Raises what a job raises."""
        run = _Batch(jobs, self._busy, self._changed)
        for _ in range(ROUNDS):
            self._begin(run)
            if run.wait(self.patience):
                break
        return run.end()

    def _begin(self, run: _Batch[T]) -> None:
        """Have threads work; the caller, where not even one can be started."""
        began = False
        try:
            for _ in range(min(self._threads, len(run.waiting))):
                threads.start(run.work, self._name)
                began = True
        except threads.NoThreadError:
            if not began:
                run.work()


class _Batch(Generic[T]):
    def __init__(
        self, jobs: Mapping[str, Callable[[], T]], busy: set[str], changed: threading.Condition
    ) -> None:
        self._jobs = jobs
        self._busy = busy
        self._changed = changed
        self._results: dict[str, T] = {}
        self._errors: list[Exception] = []
        self._ended = 0
        with changed:
            self.waiting = collections.deque(key for key in jobs if key not in busy)
            self._due = len(self.waiting)

    def work(self) -> None:
        """Take jobs until none is left."""
        while True:
            with self._changed:
                if not self.waiting:
                    return
                key = self.waiting.popleft()
                self._busy.add(key)
            self._do(key)

    def _do(self, key: str) -> None:
        result: dict[str, T] = {}
        errors: list[Exception] = []
        try:
            result[key] = self._jobs[key]()
        except Exception as error:
            errors.append(error)
        with self._changed:
            self._busy.discard(key)
            self._errors += errors
            self._results.update(result)
            self._ended += 1
            if self._ended == self._due:
                self._changed.notify_all()

    def wait(self, patience: float) -> bool:
        """Whether all jobs have ended, once they have or none has for so many seconds."""
        with self._changed:
            ended, since = self._ended, time.monotonic()
            while self._ended < self._due:
                left = since + patience - time.monotonic()
                if self._ended > ended:
                    ended, since = self._ended, time.monotonic()
                elif left <= 0:
                    return False
                self._changed.wait(max(left, 0.001))
            return True

    def end(self) -> dict[str, T]:
        """Begin no further job; the results there are."""
        with self._changed:
            self.waiting.clear()
            if self._errors:
                raise self._errors[0]
            return dict(self._results)
