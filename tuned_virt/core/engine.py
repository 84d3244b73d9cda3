# SPDX-License-Identifier: GPL-2.0-or-later
"""From a policy to the kernel and back: read, decide, keep the originals, write, read back, verify.

Everything that a plugin, `tuned-virt restore` or a dry run does goes through `Engine`, so there is
one way to decide and one way to undo. Undoing is applying the policy that asks for nothing.
"""

from __future__ import annotations

import functools
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic, Protocol, TypeVar

from tuned_virt.core.journal import Journal
from tuned_virt.core.options import OptionSpec, Section
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import Change, Plan, Values, shown
from tuned_virt.core.worker_pool import KeyedWorkerPool
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFileError, KernelFS, active_word

log = logging.getLogger("tuned")

P = TypeVar("P")
S = TypeVar("S")

GIVEN_UP = "given up half-way: something else is to be applied"


class Result(str, Enum):
    """Of verifying one setting."""

    PASSED = "passed"
    FAILED = "failed"
    NOTE = "note"


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
        """Begin."""

    def stop(self) -> None:
        """End, at once; nothing is written afterwards."""

    def findings(self) -> Iterable[Finding]:
        """What verify says of it."""


class Tuner(ABC, Generic[P, S]):
    """What one plugin tunes: its options, how to read the machine, and the pure decision."""

    name: str
    options: Mapping[str, OptionSpec]
    part_of: str = ""
    """The plugin whose second record this is, where `name` is not a plugin."""
    restore_is_deferred: bool = True
    """At a profile switch, undoing waits for the next apply, which may want the same."""
    sectioned: bool = False
    """Several sections of a profile stay apart, each with its devices: see `parse_sections`."""
    conflicting_plugin: tuple[str, str] = ("", "")
    """A plugin of TuneD's that sets the same, and with which of its options."""
    worker_threads: int = 64
    worker_timeout: float = timeouts.QUEUE_DRAINS
    timeout_reason: str = "not done yet"
    """Of `lane`: how many at a time, how long one may do nothing, and what is said then."""

    @abstractmethod
    def parse(self, options: Mapping[str, str]) -> P:
        """The policy that options ask for. Raises BadOptions, naming all that is wrong."""

    def parse_sections(self, sections: Sequence[Section], conflicting: Sequence[Section]) -> P:
        """The policy of sections, beside what TuneD's `rival` has. Raises BadOptions."""
        raise NotImplementedError

    @abstractmethod
    def read(self, fs: KernelFS, policy: P, originals: Values) -> S:
        """The machine as it is, as far as this policy and the kept originals need to know."""

    def look(self, fs: KernelFS, policy: P, originals: Values) -> S:
        """The machine as far as verify compares it; cheaper than `read` where that is possible."""
        return self.read(fs, policy, originals)

    @abstractmethod
    def decide(self, policy: P, state: S, originals: Values) -> Plan:
        """The changes towards the policy; kept originals it does not claim are put back. Pure."""

    @abstractmethod
    def values(self, state: S) -> Values:
        """The settings' values in a state, by name."""

    def undoing(self, policy: P) -> P:
        """The policy that asks for nothing, with the permissions of the one it undoes."""
        return self.parse({})

    def controller(
        self, policy: P, plan: Plan, fs: KernelFS, journal: Journal, replan: Callable[[], None]
    ) -> Controller | None:
        """What goes on tuning once the plan is carried out; None for a plan that is all.

        `again` has the policy planned and applied once more, for a machine that has changed.
        """
        return None

    def restored(self) -> None:
        """Everything is back: what else says that something is in force goes."""

    def worker_key(self, setting: str) -> str:
        """Changes of one lane are made in order, those of several side by side, after those of "".

        A lane that hangs is left alone until it goes on by itself, and keeps nobody waiting.
        """
        return ""

    def gone(self, state: S, setting: str) -> str:
        """Why a setting that was applied is no more, "" where nothing explains it."""
        return ""

    def write(self, fs: KernelFS, change: Change) -> None:
        """Make one change. Raises KernelFileError."""
        fs.write(change.path, change.after)

    def write_slowly(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> None:
        """Make a slow change, and end early once it is abandoned. Raises KernelFileError."""
        self.write(fs, change)

    def shortfall(self, change: Change, now: str) -> str:
        """Why a change was written and is not so."""
        return f"{change.path} took '{change.after}' but reads '{now}'"

    def took(self, change: Change, now: str) -> bool:
        """Whether what is read after a change is what was written."""
        return now == change.after

    def current(self, fs: KernelFS, change: Change) -> str:
        """The value to compare before and after writing. Raises KernelFileError."""
        return active_word(fs.read(change.path))


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
        self._returned: frozenset[str] = frozenset()  # originals that are back, to be forgotten
        self._workers = KeyedWorkerPool(
            f"virt-{tuner.name}-lane", tuner.worker_threads, tuner.worker_timeout
        )

    def abandon(self) -> None:
        """End what is being carried out early: something else is to be. From any thread."""
        self._abandoned.set()

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
        self._let_go(prepared, failed)
        self._say(plan)
        return ApplyResult(plan, failed, made)

    def apply(self, policy: P) -> ApplyResult:
        """Make the machine as the policy asks; originals that it does not claim are put back."""
        return self.execute(self.prepare(policy))

    def controller(
        self, policy: P, prepared: Prepared, replan: Callable[[], None]
    ) -> Controller | None:
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
        """Whether originals are pending, or kept although they are back, or cannot be read."""
        try:
            return bool(self._returned or self.originals.record(self.tuner.name).pending)
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
            yield self._finding(Result.NOTE, f"{shown(setting)} not put back yet: {reason}")

    def _compare(
        self, setting: str, found: str | None, wanted: str, result: ApplyResult
    ) -> Finding:
        name = f"'{self.tuner.name} {shown(setting)}' = '{found}'"
        if found == wanted:
            return Finding(Result.PASSED, name)
        if result.observed:
            return Finding(Result.NOTE, f"{name}, observed only, would be '{wanted}'")
        why = result.failed.get(setting, "it is not there any more" if found is None else "")
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
        made: list[Change] = []
        by_key: dict[str, list[Change]] = {}
        for change in changes:
            by_key.setdefault(self.tuner.worker_key(change.setting), []).append(change)

        def make(own: Iterable[Change]) -> dict[str, str]:
            return dict(self._make_all(own, made))

        failed = make(by_key.pop("", []))
        done = self._workers.run(
            {worker_key: functools.partial(make, own) for worker_key, own in by_key.items()}
        )
        for worker_key, own in by_key.items():
            failed.update(done[worker_key] if worker_key in done else self._late(own))
        return tuple(made), failed

    def _late(self, changes: Iterable[Change]) -> Iterator[tuple[str, str]]:
        for change in changes:
            self._say_not_made(change, self.tuner.timeout_reason)
            yield change.setting, self.tuner.timeout_reason

    def _make_all(self, changes: Iterable[Change], made: list[Change]) -> Iterator[tuple[str, str]]:
        """Make changes in order, add them to those made; yields by setting why one was not."""
        for change in changes:
            try:
                reason = self._make(change, made)
            except KernelFileError as error:
                reason = str(error)
            if reason:
                self._say_not_made(change, reason)
                yield change.setting, reason

    def _say_not_made(self, change: Change, reason: str) -> None:
        """Once: what is pending for the same reason is tried again and again."""
        if self._told.get(change.setting) != reason:
            level = logging.INFO if reason == GIVEN_UP else logging.ERROR
            log.log(level, "%s: %s: %s", self.tuner.name, shown(change.setting), reason)

    def _make(self, change: Change, made: list[Change]) -> str:
        """Make one change; why it did not take, "" if it did. Raises KernelFileError."""
        before = self.tuner.current(self._fs, change)
        if before == change.after:
            return ""
        if self._abandoned.is_set():
            return GIVEN_UP
        if change.slow:
            log.info("%s: begins: %s", self.tuner.name, change)
            self.tuner.write_slowly(self._fs, change, self._abandoned)
        else:
            self.tuner.write(self._fs, change)
        now = self.tuner.current(self._fs, change)
        change = replace(change, before=before)
        self._journal.add(self.tuner.name, replace(change, after=now))
        if self.tuner.took(change, now):
            made.append(change)
            log.info("%s: %s", self.tuner.name, change)
            return ""
        return GIVEN_UP if self._abandoned.is_set() else self.tuner.shortfall(change, now)

    def _let_go(self, prepared: Prepared, failed: Mapping[str, str]) -> None:
        """Forget the originals that are back; of the others say why they are not, once."""
        name = self.tuner.name
        unclaimed = prepared.kept.keys() - prepared.plan.originals.keys()
        busy = self._workers.busy
        pending = {
            **{
                key: self.tuner.timeout_reason
                for key in unclaimed
                if self.tuner.worker_key(key) in busy
            },
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
            log.warning("%s: %s not put back yet: %s", name, shown(setting), reason)
        self._told = pending

    def _say(self, plan: Plan) -> None:
        for setting, reason in plan.refused.items():
            log.error("%s: %s is not set: %s", self.tuner.name, shown(setting), reason)
        for setting, reason in plan.missing.items():
            log.warning("%s: %s is skipped: %s", self.tuner.name, shown(setting), reason)
        for note in plan.notes:
            log.info("%s: %s", self.tuner.name, note)
