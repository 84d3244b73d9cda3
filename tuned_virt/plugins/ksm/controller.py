# SPDX-License-Identifier: GPL-2.0-or-later
"""The thread that samples, asks an algorithm, and carries out what it decides."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.plan import Change, Values
from tuned_virt.kernel import threads
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.plugins.ksm import auto, ksmtuned
from tuned_virt.plugins.ksm.auto import AutoPolicy
from tuned_virt.plugins.ksm.controller_state import (
    ControllerState,
    ControllerStateFile,
    LoggedDecision,
)
from tuned_virt.plugins.ksm.decision import ControllerMemory, Decision, Phase, Sample
from tuned_virt.plugins.ksm.ksmtuned import KsmtunedPolicy
from tuned_virt.plugins.ksm.sampler import Sampler
from tuned_virt.plugins.ksm.state import FOLDER

log = logging.getLogger("tuned")

SETTLE = 0.05
"""Seconds that further events may take to join one that woke the loop."""

BEGIN = 0.1
"""Seconds to the first look: what TuneD has to apply besides goes first."""

TROUBLED = 10.0
"""Seconds to the next look after one that failed."""

REPEAT = 60.0
"""Seconds before the same complaint is logged again."""


def decide(
    policy: AutoPolicy | KsmtunedPolicy, sample: Sample, memory: ControllerMemory
) -> Decision:
    """What a policy's algorithm says. Pure."""
    if isinstance(policy, AutoPolicy):
        return auto.decide(policy, sample, memory)
    return ksmtuned.decide(policy, sample, memory)


class Clock:
    """Time as the machine has it. Tests have their own."""

    def now(self) -> float:
        """Seconds, monotonic; the same for all processes of a boot."""
        return time.monotonic()

    def events(
        self, waiting: queue.SimpleQueue[str | None], seconds: float
    ) -> tuple[str, ...] | None:
        """What comes within some seconds; None once the loop is to end."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(waiting.get(timeout=seconds))
            time.sleep(SETTLE)
            while True:
                found.append(waiting.get_nowait())
        return None if None in found else tuple(event for event in found if event)


class KsmController:
    """Carries out one algorithm. `stop` returns at once, and nothing is written after it."""

    def __init__(  # noqa: PLR0913 - its edges, which tests replace
        self,
        policy: AutoPolicy | KsmtunedPolicy,
        fs: KernelFS,
        journal: Journal,
        record: ControllerStateFile,
        sampler: Sampler,
        clock: Clock | None = None,
    ) -> None:
        self._policy = policy
        self._fs = fs
        self._journal = journal
        self._record = record
        self._clock = clock or Clock()
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._looking = threading.Lock()
        self._stopped = False
        self._troubles: tuple[str, ...] = ()
        self._said: dict[str, float] = {}
        found = record.load()
        same = found.algorithm == repr(policy)
        self._content = ControllerState(
            repr(policy), found.memory if same else ControllerMemory(), found.decisions
        )
        self._sampler = sampler

    def wake(self, event: str) -> None:
        """Look now: a guest has started or stopped."""
        self._events.put(event)

    def start(self) -> None:
        """Begin, in a thread of its own. Raises NoThreadError."""
        threads.start(self._run, "virt-ksm-loop")

    def stop(self) -> None:
        """End; waits for a write under way, which ksmd's batch (20 ms) may hold up."""
        with self._looking:
            self._stopped = True
        self._events.put(None)
        self._sampler.stop()
        self._record.remove()

    def _run(self) -> None:
        events = self._clock.events(self._events, BEGIN)
        self._sampler.start(self.wake)
        while events is not None:
            events = self._clock.events(self._events, self.look(events))

    def look(self, events: tuple[str, ...] = ()) -> float:
        """Sample, decide, carry out; seconds to the next. Lets no error out: the thread lives."""
        with self._looking:
            if self._stopped:
                return TROUBLED
            try:
                return self._look(events)
            except KernelFileError as error:
                self._trouble(str(error))
            except Exception as error:
                self._trouble(f"internal error, please report it: {error!r}", trace=error)
                memory = ControllerMemory()  # what it remembered may be why
                self._content = replace(self._content, memory=memory)
            return TROUBLED

    def _look(self, events: tuple[str, ...]) -> float:
        before = self._content.memory
        sample = self._sampler.sample(self._clock.now(), bool(events))
        decision = decide(self._policy, sample, before)
        for remark in decision.noted:
            log.warning("ksm: %s", remark)
        failed = self._carry_out(decision, sample)
        self._remember(decision, failed, before)
        self._trouble(*failed.values())
        return decision.next_look

    def _carry_out(self, decision: Decision, sample: Sample) -> dict[str, str]:
        """Write the changes; by name, why the kernel refused one."""
        failed = {}
        for name, value in decision.changes.items():
            path = f"{FOLDER}/{name}"
            try:
                self._fs.write(path, value)
            except KernelFileError as error:
                failed[name] = str(error)
                continue
            change = Change(name, path, sample.settings[name], value, decision.why)
            self._journal.add("ksm", change)
        return failed

    def _remember(self, decision: Decision, failed: Values, before: ControllerMemory) -> None:
        memory = decision.memory
        kept = tuple(pair for pair in memory.written if pair[0] not in failed)
        memory = replace(memory, written=kept)
        decisions = self._content.decisions
        changes = dict(decision.changes)
        turned = memory.phase is not before.phase or memory.begun != before.begun
        if (turned and decision.why) or self._worth_saying(changes):
            made = LoggedDecision(time.time(), memory.phase.value, decision.why, changes)
            decisions = self._content.with_decision(made)
            log.info("ksm: %s: %s%s", made.phase, made.why, _in_words(changes))
        elif changes:
            log.debug("ksm: %s: %s%s", memory.phase.value, decision.why, _in_words(changes))
        self._content = ControllerState(self._content.algorithm, memory, decisions)
        if changes or turned:
            self._record.save(self._content)

    def _worth_saying(self, changes: dict[str, str]) -> bool:
        """Whether changes within a phase are a decision: all of ksmtuned's, and of auto's `run`."""
        return "run" in changes or (bool(changes) and isinstance(self._policy, KsmtunedPolicy))

    def _trouble(self, *texts: str, trace: Exception | None = None) -> None:
        """What went wrong with this look: verify fails for it; each is logged once a minute."""
        self._troubles = texts
        now = self._clock.now()
        self._said = {text: when for text, when in self._said.items() if now - when < REPEAT}
        for text in texts:
            if text not in self._said:
                self._said[text] = now
                log.warning("ksm: %s", text, exc_info=trace)

    def findings(self) -> Iterator[Finding]:
        """What verify says of it: the phase, and each setting as the algorithm wrote it last."""
        with self._looking:
            memory, troubles = self._content.memory, self._troubles
            try:
                found = {
                    name: self._fs.read_optional(f"{FOLDER}/{name}") for name, _ in memory.written
                }
            except KernelFileError as error:
                memory, troubles = replace(memory, written=()), (*troubles, str(error))
        yield from (Finding(Result.FAILED, f"ksm: {trouble}") for trouble in troubles)
        for name, value in memory.written if memory.phase is not Phase.YIELDED else ():
            if found[name] == value:
                yield Finding(Result.PASSED, f"'ksm {name}' = '{value}'")
            else:
                text = f"'ksm {name}' = '{found[name]}', expected '{value}'"
                yield Finding(Result.FAILED, f"{text} (changed by another program)")
        yield Finding(Result.NOTE, f"ksm: {': '.join((memory.phase.value, *self._reasons()))}")

    def _reasons(self) -> Iterator[str]:
        """Why it is in this phase, where that was a decision of this policy."""
        made = self._content.decisions[-1:]
        yield from (last.why for last in made if last.phase == self._content.memory.phase.value)


def _in_words(changes: dict[str, str]) -> str:
    text = ", ".join(f"{name}={value}" for name, value in changes.items())
    return f" ({text})" if text else ""
