# SPDX-License-Identifier: GPL-2.0-or-later
"""One per plugin and process: carries out applies and restores in order, what is slow in a thread.

TuneD makes a new plugin object at every profile switch, and it waits for unapply inside a D-Bus
call that times out after 40 s. So what may take long lives here: callers wait for `PATIENCE` and go
on; a restore that another apply is about to follow is put off, and dropped when that apply comes;
what could not be put back is tried again.
"""

from __future__ import annotations

import atexit
import collections
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from tuned_virt.core.engine import Begun, Engine, Finding, Keeper, Outcome, P, Result, S

log = logging.getLogger("tuned")

Job = Callable[[], Any]
"""Does its quick part and returns the rest, another job, or None."""

PATIENCE = 2.0
"""Seconds that apply and restore wait for the work before they leave it to go on by itself."""

HANDOVER = 10.0
"""Seconds after which a restore that was put off is done, if nobody says whether an apply came."""

RETRY = 30.0
"""Seconds between attempts to put back what could not be put back."""


@dataclass
class Held(Generic[P]):
    """The policy in force; neither outcome nor error while it is still being applied."""

    policy: P
    outcome: Outcome | None = None
    error: str = ""


class Steward(Generic[P, S]):
    """Serves one engine. All its methods may be called from any thread."""

    def __init__(self, engine: Engine[P, S]) -> None:
        self.engine = engine
        self._jobs: collections.deque[tuple[Job, threading.Event]] = collections.deque()
        self._running = False
        self._due = threading.Event()
        self._turn = threading.Condition()
        self._ticket: object | None = None
        self._held: Held[P] | None = None
        self._undone: P | None = None
        self._keeping: tuple[P, Keeper] | None = None
        threading.Thread(target=self._work, name=f"virt-{engine.tuner.name}", daemon=True).start()
        atexit.register(self.flush)

    def apply(self, policy: P, observe: bool = False) -> None:
        """Apply a policy, or only say what it would do. Cancels a restore that was put off."""
        self._cancel()
        self._held = held = Held(policy)
        self.engine.abandon()
        self._do(lambda: self._apply(held, observe))

    def restore(self) -> None:
        """Put everything back; what cannot be now is tried again later."""
        self._cancel()
        self._drop()
        self.engine.abandon()
        self._do(self._restore)

    def restore_later(self, settled: threading.Event) -> None:
        """Put everything back unless an apply comes before the event is set."""
        self._drop()
        self._schedule(HANDOVER, settled)

    def flush(self) -> None:
        """Do now what was put off."""
        if self._cancel():
            self.engine.abandon()
            self._do(self._restore)

    def verify(self, ignore_missing: bool) -> list[Finding]:
        """Findings on what was applied last; none where nothing was."""
        held = self._held
        if held is None:
            return []
        if held.error:
            return [Finding(Result.FAILED, f"{self.engine.tuner.name}: {held.error}")]
        if held.outcome is None:
            return [Finding(Result.NOTE, f"{self.engine.tuner.name}: still being applied")]
        found = list(self.engine.verify(held.outcome, held.policy, ignore_missing))
        keeping = self._keeping
        return found + (list(keeping[1].findings()) if keeping else [])

    def _apply(self, held: Held[P], observe: bool) -> Job | None:
        if self._held is not held:
            return None  # overtaken while it waited
        policy = self.engine.nothing(held.policy) if observe else held.policy
        if self._keeping and self._keeping[0] != policy:
            self._stop_keeping()
        begun = self.engine.begin(policy)
        keeper = self.engine.keeper(policy, begun, lambda: self._again(policy))
        if keeper is None:
            self._stop_keeping()  # before originals are put back: it would change them again

        def finish() -> None:
            if observe:
                held.outcome = self.engine.observe(held.policy)
            else:
                held.outcome = self.engine.finish(begun)
                self._keep(policy, keeper)

        return self._now_or_rest(begun, finish)

    def _again(self, policy: P) -> None:
        """Have what is held planned and applied once more, unless another policy has come.

        A keeper outlives applies of its policy, so it asks for the policy, not for one apply.
        """
        held = self._held
        if held is not None and held.policy == policy and not self._due.is_set():
            self._due.set()
            self._later(lambda: self._once_more(held))

    def _once_more(self, held: Held[P]) -> Job | None:
        self._due.clear()
        if self._held is not held:
            return None
        begun = self.engine.begin(held.policy)
        if begun.plan.changes:
            held.outcome = None

        def finish() -> None:
            held.outcome = self.engine.finish(begun)

        return self._now_or_rest(begun, finish)

    def _keep(self, policy: P, keeper: Keeper | None) -> None:
        """Have the policy kept up: by the keeper that does already, where there is one.

        It starts in the thread: TuneD waits for the apply, not for threads and sockets. It does so
        before anything that waits, which may be to stop it.
        """
        if keeper is not None and self._keeping is None:
            self._keeping = (policy, keeper)
            with self._turn:
                self._jobs.appendleft((keeper.start, threading.Event()))
                self._turn.notify()

    def _stop_keeping(self) -> None:
        keeping, self._keeping = self._keeping, None
        if keeping:
            keeping[1].stop()

    def _drop(self) -> None:
        if self._held:
            self._undone = self._held.policy
        self._held = None

    def _restore(self) -> Job | None:
        self._stop_keeping()
        begun = self.engine.begin(self.engine.nothing(self._undone))

        def finish() -> None:
            self.engine.finish_restore(begun)
            if self.engine.baseline.record(self.engine.tuner.name).pending and not self._held:
                self._schedule(RETRY, threading.Event())

        return self._now_or_rest(begun, finish)

    @staticmethod
    def _now_or_rest(begun: Begun, finish: Callable[[], None]) -> Job | None:
        if begun.slow:
            return finish
        finish()
        return None

    def _schedule(self, seconds: float, sooner: threading.Event) -> None:
        ticket = self._ticket = object()

        def wait() -> None:
            sooner.wait(seconds)
            if self._ticket is ticket:
                self.flush()

        name = f"virt-{self.engine.tuner.name}-later"
        threading.Thread(target=wait, name=name, daemon=True).start()

    def _cancel(self) -> bool:
        put_off, self._ticket = self._ticket is not None, None
        return put_off

    def _do(self, job: Job) -> None:
        """Run a job; what is slow, or comes while another runs, in the thread, in order."""
        done = threading.Event()
        with self._turn:
            at_once = not self._running and not self._jobs
            if at_once:
                self._running = True
            else:
                self._jobs.append((job, done))
        if at_once:
            rest = self._run(job)
            with self._turn:
                self._running = False
                if rest is not None:
                    self._jobs.appendleft((rest, done))
                self._turn.notify()
            if rest is None:
                return
        if not done.wait(PATIENCE):
            log.info("%s: takes longer than %g s, goes on", self.engine.tuner.name, PATIENCE)

    def _later(self, job: Job) -> None:
        """Run a job in the thread, after those that wait; nobody waits for it."""
        with self._turn:
            self._jobs.append((job, threading.Event()))
            self._turn.notify()

    def _work(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._jobs and not self._running)
                job, done = self._jobs.popleft()
                self._running = True
            rest: Job | None = job
            while rest is not None:
                rest = self._run(rest)
            with self._turn:
                self._running = False
            done.set()

    def _run(self, job: Job) -> Job | None:
        """A job's quick part; returns its rest. The process must live: any error is only said."""
        held = self._held
        try:
            rest: Job | None = job()
            return rest
        except Exception as error:
            log.exception("%s: internal error, please report it", self.engine.tuner.name)
            if held and held.outcome is None:
                held.error = f"internal error, please report it: {error!r}"
            return None
