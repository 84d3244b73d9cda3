# SPDX-License-Identifier: GPL-2.0-or-later
"""isolation= carried out: planned when dedicated guests come and go, put back with the last."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from tuned_virt.core.engine import ApplyResult, Engine, Finding, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import OBSERVE, OptionSpec
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import Values
from tuned_virt.core.tuner import Tuner
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.irqbalance import Irqbalance
from tuned_virt.plugins.vm_pinning.isolation import host, planner, tasks
from tuned_virt.plugins.vm_pinning.isolation.planner import HostIsolationPolicy, IsolationState
from tuned_virt.plugins.vm_pinning.original import PLUGIN

RECORD = "vm_isolation"


class IsolationTuner(Tuner[HostIsolationPolicy, IsolationState]):
    """The host's tasks and interrupts, as `isolation` of vm_pinning keeps them off CPUs."""

    name = RECORD
    part_of = PLUGIN
    options: Mapping[str, OptionSpec] = {"observe": OBSERVE}
    decide = staticmethod(planner.decide)

    def __init__(self, irqbalance: Irqbalance | None = None) -> None:
        self._reader = host.HostReader(irqbalance or Irqbalance())
        self.writer = host.HostWriter(self._reader)

    def parse(self, options: Mapping[str, str]) -> HostIsolationPolicy:
        """See `Tuner`: what is asked for comes from guests, not from options."""
        return HostIsolationPolicy()

    def read(self, fs: KernelFS, policy: HostIsolationPolicy, originals: Values) -> IsolationState:
        """See `Tuner`."""
        return self._reader.read(fs, policy, originals)

    def values(self, state: IsolationState) -> Values:
        """See `Tuner`."""
        return state.values

    def gone(self, state: IsolationState, setting: str) -> str:
        """What systemd did not tell is not known."""
        unit = setting.endswith(planner.UNIT)
        return f"not known: {state.unavailable}" if unit and state.unavailable else ""

    def remember(self, wanted: Values) -> None:
        """What has been set: what differs from it later is somebody else's."""
        self._reader.ours = wanted

    @property
    def immovable(self) -> frozenset[str]:
        """Interrupts that the kernel does not let be moved."""
        return frozenset(self._reader.immovable)

    def is_deaf(self, fs: KernelFS) -> bool:
        """Whether an irqbalance runs that cannot be told anything."""
        running = procfs.by_name(fs, ("irqbalance",))
        return bool(running) and self._reader.irqbalance.banned() is None


class HostIsolation:
    """Keeps the host off the CPUs of dedicated guests. For libvirt's worker and TuneD's threads."""

    def __init__(
        self,
        fs: KernelFS,
        originals: Originals,
        journal: Journal,
        tuner: IsolationTuner | None = None,
    ) -> None:
        self._fs = fs
        self._tuner = tuner or IsolationTuner()
        self._engine = Engine(self._tuner, fs, originals, journal)
        self._originals = originals
        self._lock = threading.Lock()
        self._online: str | None = None
        self._policy = HostIsolationPolicy()
        self._result: ApplyResult | None = None

    def adjust(self, policy: HostIsolationPolicy, anew: bool = False) -> None:
        """Have the host as a policy asks; nothing is done for the same one, unless it is anew."""
        with self._lock:
            online = self._fs.read_optional(host.ONLINE) if policy else None
            if not anew and (policy, online) == (self._policy, self._online):
                return
            self._policy, self._online = policy, online
            self._result = result = self._engine.apply(policy) if policy else None
            if result is not None:
                done = result.plan.wanted.keys() - result.failed.keys()
                self._tuner.remember({name: result.plan.wanted[name] for name in done})
        if not policy:
            self.restore()

    def spare(self, settings: set[str]) -> None:
        """Let go of guests that are to be pinned: what they had before is theirs again."""
        if settings & {*self._policy.loose}:
            loose = tuple(name for name in self._policy.loose if name not in settings)
            self.adjust(replace(self._policy, loose=loose))

    def restore(self) -> None:
        """Put back what is kept, also of a process before this one; what cannot be is pending."""
        with self._lock:
            self._policy, self._result = HostIsolationPolicy(), None
            if self.incomplete or self._kept():
                self._engine.restore()

    def _kept(self) -> bool:
        try:
            return bool(self._originals.record(RECORD).originals)
        except OriginalsError:
            return True

    @property
    def incomplete(self) -> bool:
        """Whether systemd has not done what is asked, or anything is still to be put back."""
        if self._policy:
            return self._result is not None and self._not_done_by_systemd(self._result)
        return self._engine.incomplete or self._kept()

    def _not_done_by_systemd(self, result: ApplyResult) -> bool:
        """Whether another attempt may succeed, as where it was too busy to answer."""
        failed = any(name.endswith(planner.UNIT) for name in result.failed)
        reasons = result.plan.refused.values()
        return failed or any(why.startswith(planner.UNANSWERED) for why in reasons)

    def findings(self, guests: set[int]) -> Iterator[Finding]:
        """What verify says; `guests` are the processes that the CPUs are dedicated to."""
        policy, result = self._policy, self._result
        if result is None:
            text = "still being applied" if policy else "no guest has dedicated CPUs to isolate"
            yield Finding(Result.NOTE, f"{RECORD}: {text}")
            return
        try:
            yield from self._engine.verify(result, policy, ignore_missing=False)
            yield from self._interrupts(policy)
            yield from tasks.findings(self._fs, policy.cpus, guests, RECORD)
        except (KernelFileError, OriginalsError) as error:
            yield Finding(Result.FAILED, f"{RECORD}: {error}")

    def _interrupts(self, policy: HostIsolationPolicy) -> Iterator[Finding]:
        if policy.irqs and self._tuner.immovable:
            names = sorted(self._tuner.immovable, key=lambda one: int(one.split()[1]))
            text = f"{len(names)} interrupts that the kernel does not let be moved"
            yield Finding(Result.NOTE, f"{RECORD}: {text}: {', '.join(names)}")
        if policy.irqs and self._tuner.is_deaf(self._fs):
            text = "irqbalance is running and does not answer: it may move interrupts back"
            advice = "set IRQBALANCE_BANNED_CPULIST and restart it"
            yield Finding(Result.FAILED, f"{RECORD}: {text}; {advice}")
