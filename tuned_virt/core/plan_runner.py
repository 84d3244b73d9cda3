# SPDX-License-Identifier: GPL-2.0-or-later
"""One per plugin and process: carries out applies and restores in order, what is slow in a thread.

TuneD makes a new plugin object at every profile switch, and it waits for unapply inside a D-Bus
call that times out after 40 s. So what may take long lives here: callers wait for `timeouts.APPLY`
and go on; a restore that another apply is about to follow is deferred, and dropped when that apply
comes; what could not be restored is tried again.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from tuned_virt.core.deferred_restore import DeferredRestore
from tuned_virt.core.engine import ApplyResult, Controller, Engine, Finding, Prepared, Result
from tuned_virt.core.later import call_later
from tuned_virt.core.originals import OriginalsError
from tuned_virt.core.plan import Values
from tuned_virt.core.tuner import P, S
from tuned_virt.kernel import threads, timeouts
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.kernel.threads import NoThreadError

log = logging.getLogger("tuned")

Job = Callable[[], Any]
"""Does its quick part and returns the rest, another job, or None."""


@dataclass
class AppliedPolicy(Generic[P]):
    """The policy in force; neither outcome nor error while it is still being applied."""

    policy: P
    result: ApplyResult | None = None
    error: str = ""


class PlanRunner(Generic[P, S]):
    """Serves one engine. All its methods may be called from any thread."""

    def __init__(self, engine: Engine[P, S]) -> None:
        self.engine = engine
        self._jobs: collections.deque[tuple[Job, threading.Event]] = collections.deque()
        self._running = False
        self._threaded = False
        self._due = threading.Event()
        self._turn = threading.Condition()
        self._deferred = DeferredRestore(engine.tuner.name, self._restore_deferred)
        self._applied: AppliedPolicy[P] | None = None
        self._undone: P | None = None
        self._controlling: tuple[P, Controller] | None = None

    @property
    def policy(self) -> P | None:
        """The one in force, or that is being applied."""
        return self._applied.policy if self._applied else None

    @property
    def planned(self) -> Values:
        """Settings of the plan in force, and their values; none while it is being applied."""
        result = self._applied.result if self._applied else None
        return result.plan.wanted if result else {}

    def apply(self, policy: P, observe: bool = False) -> None:
        """Apply a policy, or only say what it would do. Cancels a restore that was put off."""
        self._deferred.cancel()
        self._applied = applied = AppliedPolicy(policy)
        self.engine.abandon()
        self._do(lambda: self._apply(applied, observe))

    def restore(self) -> None:
        """Put everything back; what cannot be now is tried again later."""
        self._deferred.cancel()
        self._drop()
        self.engine.abandon()
        self._do(self._restore)

    def restore_later(self, settled: threading.Event) -> None:
        """Put everything back unless an apply comes before the event is set."""
        self._drop()
        try:
            self._deferred.schedule(settled)
        except NoThreadError:
            self.restore()

    def _restore_deferred(self) -> None:
        self.engine.abandon()
        self._do(self._restore)

    def verify(self, ignore_missing: bool) -> list[Finding]:
        """Findings on what was applied last; none where nothing was."""
        applied = self._applied
        if applied is None:
            return []
        if applied.error:
            return [Finding(Result.FAILED, f"{self.engine.tuner.name}: {applied.error}")]
        if applied.result is None:
            return [Finding(Result.NOTE, f"{self.engine.tuner.name}: still being applied")]
        found = list(self.engine.verify(applied.result, applied.policy, ignore_missing))
        controlling = self._controlling
        try:
            return found + (list(controlling[1].findings()) if controlling else [])
        except (KernelFileError, OriginalsError) as error:
            text = f"{self.engine.tuner.name}: {error}"
            return [*found, Finding(Result.FAILED, text)]

    def _apply(self, applied: AppliedPolicy[P], observe: bool) -> Job | None:
        if self._applied is not applied:
            return None  # overtaken while it waited
        policy = self.engine.nothing(applied.policy) if observe else applied.policy
        if self._controlling and self._controlling[0] != policy:
            self._stop_controller()
        self.engine.say_failures_again()
        prepared = self.engine.prepare(policy)
        controller = self.engine.controller(policy, prepared, lambda: self._replan(policy))
        if controller is None:
            self._stop_controller()  # before originals are put back: it would change them again

        def finish() -> None:
            if observe:
                applied.result = self.engine.observe(applied.policy)
            else:
                applied.result = self.engine.execute(prepared)
                self._start_controller(policy, controller)

        return self._now_or_rest(prepared, finish)

    def _replan(self, policy: P) -> None:
        """Have what is held planned and applied once more, unless another policy has come.

        A controller outlives applies of its policy, so it asks for the policy, not for one apply.
        """
        applied = self._applied
        if applied is not None and applied.policy == policy and not self._due.is_set():
            self._due.set()
            self._later(lambda: self._apply_again(applied))

    def _apply_again(self, applied: AppliedPolicy[P]) -> Job | None:
        self._due.clear()
        if self._applied is not applied:
            return None
        prepared = self.engine.prepare(applied.policy)
        if prepared.plan.changes:
            applied.result = None

        def finish() -> None:
            applied.result = self.engine.execute(prepared)

        return self._now_or_rest(prepared, finish)

    def _start_controller(self, policy: P, controller: Controller | None) -> None:
        """Have a controller go on with the policy: the one that does already, where there is one.

        It starts a moment later: TuneD waits for the apply of all plugins, not for threads and
        sockets. It does so before anything that waits, which may be to stop it.
        """
        if controller is not None and self._controlling is None:
            self._controlling = (policy, controller)
            self._begin(controller)

    def _begin(self, controller: Controller) -> bool:
        """Have it start in a moment, before what waits."""
        with self._turn:
            self._jobs.appendleft((lambda: self._start(controller), threading.Event()))
        call_later(self._is_served)
        return True

    def _start(self, controller: Controller) -> None:
        if self._controlling is None or self._controlling[1] is not controller:
            return
        try:
            controller.start()
        except NoThreadError:
            call_later(lambda: self._begin(controller))

    def _stop_controller(self) -> None:
        """End what goes on tuning; whatever becomes of that, what follows is carried out."""
        controlling, self._controlling = self._controlling, None
        try:
            if controlling:
                controlling[1].stop()
        except Exception:
            log.exception("%s: its controller was not ended cleanly", self.engine.tuner.name)

    def _drop(self) -> None:
        if self._applied:
            self._undone = self._applied.policy
        self._applied = None

    def _restore(self) -> Job | None:
        self._stop_controller()
        prepared = self.engine.prepare(self.engine.nothing(self._undone))

        def finish() -> None:
            result = self.engine.execute_restore(prepared)
            if (result.refused or self.engine.incomplete) and not self._applied:
                self._try_again()

        return self._now_or_rest(prepared, finish)

    def _try_again(self) -> None:
        try:
            self._deferred.schedule(seconds=timeouts.RETRY_RESTORE)
        except NoThreadError as error:
            log.warning("%s: it is not restored again by itself: %s", self.engine.tuner.name, error)

    @staticmethod
    def _now_or_rest(prepared: Prepared, finish: Callable[[], None]) -> Job | None:
        if prepared.slow:
            return finish
        finish()
        return None

    def _do(self, job: Job) -> None:
        """Run a job; what is slow, or comes while another runs, in the thread, in order."""
        done = threading.Event()
        with self._turn:
            at_once, served = not self._running and not self._jobs, True
            if at_once:
                self._running = True
            else:
                self._jobs.append((job, done))
                served = self._go_on()
        if at_once:
            rest = self._run(job)
            with self._turn:
                self._running = False
                if rest is None:
                    self._turn.notify()
                    return
                self._jobs.appendleft((rest, done))
                served = self._go_on()
        if not served:
            self._work()
        if not done.wait(timeouts.APPLY):
            name = self.engine.tuner.name
            log.info(
                "%s: takes longer than %g s; it continues in the background", name, timeouts.APPLY
            )

    def _later(self, job: Job) -> None:
        """Run a job in the thread, after those that wait; nobody waits for it."""
        with self._turn:
            self._jobs.append((job, threading.Event()))
            served = self._go_on()
        if not served:
            call_later(self._is_served)

    def _is_served(self) -> bool:
        with self._turn:
            return self._go_on()

    def _go_on(self) -> bool:
        """Have a thread run the jobs that wait; it ends when there are none. The lock is held.

        False where no thread can be had.
        """
        self._turn.notify()
        if self._jobs and not self._threaded:
            try:
                threads.start(self._work, f"virt-{self.engine.tuner.name}")
            except NoThreadError:
                return False
            self._threaded = True
        return True

    def _work(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: not self._jobs or not self._running)
                if not self._jobs:
                    self._threaded = False
                    return
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
        applied = self._applied
        try:
            rest: Job | None = job()
            return rest
        except Exception as error:
            log.exception("%s: internal error, please report it", self.engine.tuner.name)
            if applied and applied.result is None:
                applied.error = f"internal error, please report it: {error!r}"
            return None
