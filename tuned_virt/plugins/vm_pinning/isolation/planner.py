# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPUs are left to whom while dedicated guests run. Pure.

What a task, a work queue or an interrupt had is kept as the original, and it is left those of its
CPUs that are not dedicated; where none are, all that no guest has. CPU sets are written as lists
("0-3,8"), also where the kernel has masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import cpuset

Cpus = frozenset[int]

UNITS = ("system.slice", "user.slice", "init.scope")
"""systemd's units that hold all of the host's own tasks; guests are in machine.slice."""

UNANSWERED = "systemctl show: "
"""How the reason begins why units cannot be set now, though they may be later."""

UNIT, IRQ, GUEST = " AllowedCPUs", "irq ", "guest "
"""Settings are named "system.slice AllowedCPUs", "irq 24", "guest web1#PID:START/affinity"."""

WORKQUEUES = "workqueue cpumask"
DEFAULT_IRQ = "default_smp_affinity"
BANNED = "irqbalance banned CPUs"
INTERRUPTS = "interrupts on isolated CPUs"
NONE = "none"

RUNTIME = "(runtime)"
"""After a unit's CPUs: they are set by a drop-in file that lasts until the next boot."""

SEVERAL = "(several)"
"""After a guest's CPUs: not all of its threads have them."""


@dataclass(frozen=True)
class HostIsolationPolicy:
    """What is asked of the host.

    cpus   CPUs that are kept free of the host's tasks; irqs: those kept free of interrupts too
    loose  settings of guests that nobody has pinned, which are kept off as well
    """

    cpus: Cpus = frozenset()
    irqs: Cpus = frozenset()
    loose: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.cpus)


@dataclass(frozen=True)
class IsolationState:
    """The host as it is.

    unavailable  why systemd cannot keep tasks off CPUs here, "" where it can
    affinity     where systemd's own process may run: its CPUAffinity=
    found        settings' values; of irqs only those that this kernel lets be moved
    immovable    interrupts that were refused to be moved
    irqs         CPUs that are to be kept free of interrupts
    ours         what this process has set last, where it knows
    """

    online: Cpus = frozenset()
    unavailable: str = ""
    affinity: Cpus = frozenset()
    found: Values = field(default_factory=dict)
    irqs: Cpus = frozenset()
    immovable: frozenset[str] = frozenset()
    ours: Values = field(default_factory=dict)

    def is_others(self, setting: str) -> bool:
        """Whether somebody else has set a unit's or the work queues' CPUs since we did."""
        watched = setting.endswith(UNIT) or setting == WORKQUEUES
        return watched and self.found[setting] != self.ours.get(setting, self.found[setting])

    @property
    def values(self) -> dict[str, str]:
        """Value by setting, with the one that says which interrupts are still in the way."""
        return {**self.found, INTERRUPTS: ", ".join(self._in_the_way()) or NONE}

    def _in_the_way(self) -> Iterator[str]:
        for setting, cpus in self.found.items():
            movable = setting.startswith(IRQ) and setting not in self.immovable
            if movable and cpuset.parse(cpus) & self.irqs:
                yield f"{setting}: {cpus}"


@dataclass
class _HostAsked:
    """Settings that are asked for, what is expected of them later, and what cannot be."""

    values: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def decide(policy: HostIsolationPolicy, state: IsolationState, originals: Values) -> Plan:
    """Keep what is asked for off the CPUs; kept originals of all else are put back."""
    asked = _asked(policy, state, originals)
    now = state.found
    known = {name: value for name, value in originals.items() if name in now}
    others = [
        name
        for name, value in known.items()
        if name not in asked.values and state.is_others(name) and _cpus(now[name]) != _cpus(value)
    ]
    back = {name: value for name, value in known.items() if name not in others}
    targets = {**back, **asked.values}
    expected = {name: value for name, value in asked.values.items() if not name.startswith(IRQ)}
    if policy.irqs and state.online - policy.cpus:
        expected[INTERRUPTS] = NONE
    return Plan(
        changes=tuple(
            Change(name, name, now[name], value, _why(name, asked.values))
            for name, value in targets.items()
            if now[name] != value
        ),
        originals={name: now[name] for name in asked.values},
        wanted=expected,
        refused=asked.refused,
        pending={
            name: state.unavailable
            for name in originals
            if name.endswith(UNIT) and name not in now and state.unavailable
        },
        notes=(*asked.notes, *(f"{name}: {now[name]} was set by others: left" for name in others)),
    )


def _cpus(value: str) -> str:
    """A unit's CPUs; an empty drop-in is left where we took ours back and systemd was late."""
    return value.replace(RUNTIME, "").strip()


def _why(name: str, asked: Mapping[str, str]) -> str:
    return "dedicated guests run on the other CPUs" if name in asked else "original value"


def _asked(policy: HostIsolationPolicy, state: IsolationState, originals: Values) -> _HostAsked:
    asked = _HostAsked()
    if not policy:
        return asked
    rest = state.online - policy.cpus
    if not rest:
        asked.refused["host tasks"] = "no CPU is left for the host beside the dedicated ones"
        return asked
    _units(asked, policy, state, originals)
    before = {**state.found, **originals}
    everywhere = cpuset.text(state.online)
    loose = [name for name in policy.loose if before.get(name) == everywhere]
    for setting in (WORKQUEUES, *loose):
        if setting in state.found and (left := _left(before[setting], policy.cpus, rest)):
            asked.values[setting] = left
    if policy.irqs:
        _interrupts(asked, policy.irqs, before, state)
    return asked


def _units(
    asked: _HostAsked, policy: HostIsolationPolicy, state: IsolationState, originals: Values
) -> None:
    if state.unavailable:
        asked.refused["host tasks"] = state.unavailable
        return
    ours = UNITS[-1] + UNIT in originals  # then its process is where we have put it
    confined = state.affinity and state.affinity < state.online and not ours
    if confined and not state.affinity & policy.cpus:
        text = cpuset.text(state.affinity)
        asked.notes.append(f"systemd's CPUAffinity={text} keeps the host's tasks off already")
        return
    for unit in UNITS:
        setting = unit + UNIT
        known = originals.get(setting, state.found.get(setting, ""))
        allowed = cpuset.parse(_cpus(known))
        base = allowed or (state.affinity if confined else state.online)
        if left := base - policy.cpus:
            asked.values[setting] = f"{cpuset.text(left)} {RUNTIME}"
        else:
            asked.refused[setting] = f"{known}: no CPU is left to it beside the dedicated ones"


def _interrupts(asked: _HostAsked, free: Cpus, before: Values, state: IsolationState) -> None:
    """irqbalance first, lest it move them back; then where new ones go, then those there are."""
    rest = state.online - free
    if BANNED in state.found:
        asked.values[BANNED] = cpuset.text(cpuset.parse(before[BANNED]) | free)
    for setting in state.found:
        if setting == DEFAULT_IRQ or setting.startswith(IRQ):
            left = _left(before[setting], free, rest)
            if left and setting not in state.immovable:
                asked.values[setting] = left


def _left(before: str, taken: Cpus, rest: Cpus) -> str:
    """What is left of a CPU set, or all the rest; "" where nothing was taken from it."""
    cpus = cpuset.parse(before)
    return cpuset.text(cpus - taken & rest or rest) if cpus & taken else ""
