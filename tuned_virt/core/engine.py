# SPDX-License-Identifier: GPL-2.0-or-later
"""From a policy to the kernel and back: read, decide, keep the originals, write, read back, verify.

Everything that a plugin, `tuned-virt restore` or a dry run does goes through `Engine`, so there is
one way to decide and one way to undo. Undoing is applying the policy that asks for nothing.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Generic, Protocol

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import Change, Plan, Values, shown
from tuned_virt.core.tuner import P, Replan, S, Tuner, Writer
from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.kernel.files import CannotChange, KernelFileError, KernelFS

log = logging.getLogger("tuned")

GIVEN_UP = "interrupted by another profile change"


class Result(str, Enum):
    """Of verifying one setting."""

    PASSED = "passed"
    FAILED = "failed"
    NOTE = "note"
    MISSING = "skipped, missing"


@dataclass(frozen=True)
class Finding:
    """One line of verify, worded as TuneD words its own."""

    result: Result
    text: str

    def __str__(self) -> str:
        return f"verify: {self.result.value}: {self.text}"


class Controller(Protocol):
    """Goes on tuning after an apply, in a thread of its own."""

    def start(self) -> None:
        """Begin. Raises NoThreadError; it may be tried again."""

    def stop(self) -> None:
        """End, at once; nothing is written afterwards."""

    def findings(self) -> Iterable[Finding]:
        """What verify says of it."""


@dataclass(frozen=True)
class Prepared:
    """A plan about to be carried out; `refused` says why it must not be.

    kept      the originals that were kept before
    """

    plan: Plan
    kept: Values
    refused: str = ""

    @property
    def slow(self) -> bool:
        """Whether carrying it out may take seconds."""
        return any(change.slow for change in self.plan.changes)


@dataclass(frozen=True)
class ApplyResult:
    """A plan after it was carried out; `failed` says by setting why a write did not take, `made`
    what was changed, `refused` why nothing was written at all."""

    plan: Plan
    failed: Values = field(default_factory=dict)
    made: tuple[Change, ...] = ()
    observed: bool = False
    refused: str = ""


class Engine(Generic[P, S]):
    """Applies, undoes and verifies one tuner's policies on one machine."""

    def __init__(
        self, tuner: Tuner[P, S], fs: KernelFS, baseline: Originals, journal: Journal
    ) -> None:
        self.tuner = tuner
        self.originals = baseline
        self._fs = fs
        self._journal = journal
        self._abandoned = threading.Event()
        self._told: Values = {}  # what this process has logged of what is pending
        self._failed: Values = {}  # the same of what could not be set at the last apply
        self._returned: frozenset[str] = frozenset()  # originals that are back, to be forgotten

    @property
    def _writer(self) -> Writer:
        return self.tuner.writer

    @functools.cached_property
    def _workers(self) -> KeyedWorkerPool:
        name = f"virt-{self.tuner.name}-lane"
        return KeyedWorkerPool(name, self._writer.threads, self._writer.timeout)

    def abandon(self) -> None:
        """End what is being carried out early: something else is to be. From any thread."""
        self._abandoned.set()

    def say_failures_again(self) -> None:
        """Somebody has asked anew: he is told what cannot be set, whoever was told before."""
        self._failed = {}

    def plan(self, policy: P) -> Plan:
        """What applying the policy would change now."""
        return self._plan(policy, self.originals.record(self.tuner.name).originals)

    def _plan(self, policy: P, originals: Values) -> Plan:
        return self.tuner.decide(policy, self.tuner.read(self._fs, policy, originals), originals)

    def prepare(self, policy: P) -> Prepared:
        """The quick half of `apply`: read, decide, and keep the originals. Writes nothing else."""
        self._abandoned.clear()
        name, plan, kept = self.tuner.name, Plan(), {}
        try:
            self.originals.take(name)
            if self._returned:
                self.originals.forget(name, self._returned)
                self._returned = frozenset()
            kept = self.originals.record(name).originals
            plan = self._plan(policy, kept)
            self.originals.keep(name, plan.originals)
        except (OriginalsError, KernelFileError) as error:
            log.error("%s: nothing is changed: %s", name, error)
            return Prepared(plan, kept, str(error))
        return Prepared(plan, kept)

    def execute(self, prepared: Prepared) -> ApplyResult:
        """The other half: write, read back, and let go of what is back."""
        plan = prepared.plan
        if prepared.refused:
            failed = {change.setting: prepared.refused for change in plan.changes}
            return ApplyResult(plan, failed, refused=prepared.refused)
        made, failed = self._carry_out(plan.changes)
        self._failed = failed
        self._let_go(prepared, failed)
        self._say(plan)
        return ApplyResult(plan, failed, made)

    def apply(self, policy: P) -> ApplyResult:
        """Make the machine as the policy asks; originals that it does not claim are put back."""
        return self.execute(self.prepare(policy))

    def controller(self, policy: P, prepared: Prepared, replan: Replan) -> Controller | None:
        """What goes on tuning after a plan; nothing where the originals could not be kept."""
        if prepared.refused:
            return None
        return self.tuner.controller(policy, prepared.plan, self._fs, self._journal, replan)

    def restore(self, undone: P | None = None) -> ApplyResult:
        """Put every kept original back, as the undone policy permits.

        What cannot be put back now is pending, and stays kept.
        """
        return self.execute_restore(self.prepare(self.nothing(undone)))

    def nothing(self, undone: P | None = None) -> P:
        """The policy that asks for nothing, with the permissions of the one it undoes."""
        return self.tuner.parse({}) if undone is None else self.tuner.undoing(undone)

    def execute_restore(self, prepared: Prepared) -> ApplyResult:
        """As `execute`; afterwards nobody holds the tuning."""
        result = self.execute(prepared)
        name = self.tuner.name
        try:
            if result.refused:
                self.originals.set_pending(name, dict.fromkeys(prepared.kept, result.refused))
            self.originals.release(name)
            if not self.originals.record(name).originals:
                self.tuner.restored()
        except OriginalsError as error:
            log.error("%s: %s", name, error)
        return result

    @property
    def incomplete(self) -> bool:
        """Whether originals are pending, or kept although they are back, or cannot be read.

        Pending is also what could not be written down as such.
        """
        try:
            known = self._returned or self._told or self.originals.record(self.tuner.name).pending
            return bool(known)
        except OriginalsError:
            return True

    def observe(self, policy: P) -> ApplyResult:
        """Say what the policy would change; only what an earlier one left is put back."""
        self.restore(policy)
        plan = self.plan(policy)
        for change in plan.changes:
            log.info("%s: observe: would set %s", self.tuner.name, change)
        self._say(plan)
        return ApplyResult(plan, observed=True)

    def verify(self, result: ApplyResult, policy: P, ignore_missing: bool) -> Iterator[Finding]:
        """Compare the machine with what was applied, setting by setting."""
        try:
            originals = self.originals.record(self.tuner.name)
            state = self.tuner.look(self._fs, policy, originals.originals)
        except (OriginalsError, KernelFileError) as error:
            yield self._finding(Result.FAILED, str(error))
            return
        found = self.tuner.values(state)
        if result.refused and not result.failed:
            yield self._finding(Result.FAILED, f"nothing is changed: {result.refused}")
        for setting, wanted in result.plan.wanted.items():
            gone = self.tuner.gone(state, setting) if setting not in found else ""
            if gone:
                yield self._finding(Result.NOTE, f"{shown(setting)}: {gone}")
            else:
                yield self._compare(setting, found.get(setting), wanted, result)
        yield from self._exceptions(result.plan, ignore_missing)
        for setting, reason in originals.pending.items():
            yield self._finding(Result.NOTE, f"{shown(setting)} not restored yet: {reason}")

    def _compare(
        self, setting: str, found: str | None, wanted: str, result: ApplyResult
    ) -> Finding:
        name = f"'{self.tuner.name} {shown(setting)}' = '{found}'"
        if found == wanted:
            return Finding(Result.PASSED, name)
        if result.observed:
            return Finding(Result.NOTE, f"{name}, observed only, would be '{wanted}'")
        why = result.failed.get(setting, "it no longer exists" if found is None else "")
        return Finding(Result.FAILED, f"{name}, expected '{wanted}'{f' ({why})' if why else ''}")

    def _exceptions(self, plan: Plan, ignore_missing: bool) -> Iterator[Finding]:
        for setting, reason in plan.refused.items():
            yield self._finding(Result.FAILED, f"{shown(setting)}: {reason}")
        for setting, reason in plan.missing.items():
            result = Result.NOTE if ignore_missing else Result.FAILED
            yield self._finding(result, f"{shown(setting)}: {reason}")
        for note in plan.notes:
            yield self._finding(Result.NOTE, note)

    def _finding(self, result: Result, text: str) -> Finding:
        return Finding(result, f"{self.tuner.name}: {text}")

    def _carry_out(self, changes: tuple[Change, ...]) -> tuple[tuple[Change, ...], dict[str, str]]:
        """Make the changes; those that were made, and by setting why one was not."""
        if not changes:
            return (), {}
        made: list[Change] = []
        by_key: dict[str, list[Change]] = {}
        for change in changes:
            by_key.setdefault(self._writer.worker_key(change.setting), []).append(change)

        def make(own: Iterable[Change]) -> dict[str, str]:
            return dict(self._make_all(own, made))

        failed = make(by_key.pop("", []))
        done = self._workers.run({key: functools.partial(make, own) for key, own in by_key.items()})
        for key, own in by_key.items():
            failed.update(done[key] if key in done else self._late(own))
        return tuple(made), failed

    def _late(self, changes: Iterable[Change]) -> Iterator[tuple[str, str]]:
        for change in changes:
            self._say_not_made(change, self._writer.timeout_reason)
            yield change.setting, self._writer.timeout_reason

    def _make_all(self, changes: Iterable[Change], made: list[Change]) -> Iterator[tuple[str, str]]:
        """Make changes in order, add them to those made; yields by setting why one was not."""
        for change in changes:
            try:
                reason = self._make(change, made)
            except CannotChange:
                continue
            except (KernelFileError, OriginalsError) as error:
                reason = str(error)
            if reason:
                self._say_not_made(change, reason)
                yield change.setting, reason

    def _say_not_made(self, change: Change, reason: str) -> None:
        """Once: what fails for the same reason may be tried again and again."""
        if reason not in (self._told.get(change.setting), self._failed.get(change.setting)):
            level = logging.INFO if reason == GIVEN_UP else logging.ERROR
            log.log(level, "%s: %s: %s", self.tuner.name, shown(change.setting), reason)

    def _make(self, change: Change, made: list[Change]) -> str:
        """Make one change; why it did not take, "" if it did.

        Raises KernelFileError and OriginalsError.
        """
        before = self._writer.current(self._fs, change)
        if before == change.after:
            return ""
        if self._abandoned.is_set():
            return GIVEN_UP
        if change.slow:
            log.info("%s: started: %s", self.tuner.name, change)
        shortfall = self._write(change)
        now = self._writer.current(self._fs, change)
        change = replace(change, before=before)
        self._journal.add(self.tuner.name, replace(change, after=now))
        if self._writer.took(change, now):
            made.append(change)
            log.info("%s: %s", self.tuner.name, change)
            return ""
        if self._abandoned.is_set():
            return GIVEN_UP
        return shortfall or f"{change.path} was set to '{change.after}' but reads '{now}'"

    def _write(self, change: Change) -> str:
        """Write, if it may be at this moment; nobody else waits for one that may take long."""
        waits = change.slow or self._writer.worker_key(change.setting)
        with self.originals.writing(self.tuner.name):
            if not waits:
                return self._writer.write(self._fs, change, self._abandoned)
        return self._writer.write(self._fs, change, self._abandoned)

    def _let_go(self, prepared: Prepared, failed: Mapping[str, str]) -> None:
        """Forget the originals that are back; of the others say why they are not, once."""
        if not (prepared.kept or prepared.plan.pending or self._returned or self._told):
            return
        name = self.tuner.name
        unclaimed = prepared.kept.keys() - prepared.plan.originals.keys()
        busy = self._workers.busy
        late = [key for key in unclaimed if self._writer.worker_key(key) in busy]
        pending = {
            **dict.fromkeys(late, self._writer.timeout_reason),
            **{key: failed[key] for key in unclaimed & failed.keys()},
            **prepared.plan.pending,
        }
        done = unclaimed - pending.keys()
        try:
            self._returned |= done
            if self._returned:
                self.originals.forget(name, self._returned)
                self._returned = frozenset()
            self.originals.set_pending(name, pending)
        except OriginalsError as error:
            log.error("%s: %s", name, error)
        for setting, reason in sorted(pending.items() - self._told.items()):
            log.warning("%s: %s not restored yet: %s", name, shown(setting), reason)
        self._told = pending

    def _say(self, plan: Plan) -> None:
        for setting, reason in plan.refused.items():
            log.error("%s: %s is not set: %s", self.tuner.name, shown(setting), reason)
        for setting, reason in plan.missing.items():
            log.warning("%s: %s is skipped: %s", self.tuner.name, shown(setting), reason)
        for note in plan.notes:
            log.info("%s: %s", self.tuner.name, note)
