# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPUs are left to whom: situations of people who isolate a guest by hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.core.plan import Change
from tuned_virt.kernel import cpuset
from tuned_virt.plugins.vm_pinning.isolation.planner import (
    INTERRUPTS,
    HostIsolationPolicy,
    IsolationState,
    decide,
)

GUEST = "guest web1#10:20/affinity"
UNITS = ("system.slice AllowedCPUs", "user.slice AllowedCPUs", "init.scope AllowedCPUs")


def state(online: str = "0-11", **more: object) -> IsolationState:
    """A desktop with nothing isolated; `more` names settings, or fields of the state."""
    found: dict[str, str] = {
        **dict.fromkeys(UNITS, ""),
        "workqueue cpumask": online,
        "irqbalance banned CPUs": "",
        "default_smp_affinity": online,
    }
    affinity = more.pop("affinity", online)
    fields = {name: more.pop(name) for name in ("unavailable", "immovable") if name in more}
    changed = more.pop("found", {})
    assert isinstance(changed, Mapping)
    assert not more
    cpus = cpuset.parse(online)
    kept = {name: value for name, value in {**found, **changed}.items() if value is not None}
    return IsolationState(cpus, found=kept, affinity=cpuset.parse(str(affinity)), **fields)  # type: ignore[arg-type]


def policy(cpus: str, irqs: str = "", *loose: str) -> HostIsolationPolicy:
    return HostIsolationPolicy(cpuset.parse(cpus), cpuset.parse(irqs), loose)


def targets(
    asked: HostIsolationPolicy, now: IsolationState, originals: Mapping[str, str] | None = None
) -> dict[str, object]:
    """What is to be changed, and to what."""
    return {one.setting: one.after for one in decide(asked, now, originals or {}).changes}


def units(cpus: str) -> dict[str, str]:
    return dict.fromkeys(UNITS, f"{cpus} (runtime)")


def test_host_keeps_tasks_and_work_queues_off_and_no_interrupt() -> None:
    """The usual hook: system.slice, user.slice and init.scope on the first cores."""
    plan = decide(policy("4-11"), state(found={"irq 24": "5"}), {})
    made = {one.setting: one.after for one in plan.changes}
    assert made == {**units("0-3"), "workqueue cpumask": "0-3"}
    assert plan.originals == {**dict.fromkeys(UNITS, ""), "workqueue cpumask": "0-11"}
    assert plan.wanted == made
    assert INTERRUPTS not in plan.wanted


@pytest.mark.parametrize(
    ("setting", "before", "after"),
    [
        ("irq 24", "0-11", "0-3"),
        ("irq 24", "2,5", "2"),
        ("irq 24", "6", "0-3"),  # it had a dedicated CPU alone: any other
        ("irq 24", "0-127", "0-3"),  # CPUs that there may be one day
        ("irq 24", "1", None),
        ("irqbalance banned CPUs", "2", "2,4-11"),  # isolcpus=2: it bans that by itself
        ("irqbalance banned CPUs", "4-11", None),
        ("default_smp_affinity", "4-7", "0-3"),
        ("workqueue cpumask", "0-1", None),  # as isolcpus= has it
    ],
)
def test_interrupts_keep_what_is_not_dedicated(
    setting: str, before: str, after: str | None
) -> None:
    made = targets(policy("4-11", "4-11"), state(found={setting: before}))
    assert made.get(setting) == after


def test_irqbalance_is_told_before_any_interrupt_is_moved() -> None:
    made = list(targets(policy("4-11", "4-11"), state(found={"irq 24": "5", "irq 25": "6"})))
    assert made.index("irqbalance banned CPUs") < made.index("irq 24") < made.index("irq 25")


def test_an_interrupt_that_the_kernel_does_not_let_be_moved_fails_nothing() -> None:
    found = state(found={"irq 24": "5", "irq 25": "5"}, immovable=frozenset({"irq 24"}))
    plan = decide(policy("4-11", "4-11"), found, {})
    assert "irq 24" not in {one.setting for one in plan.changes}
    assert plan.wanted[INTERRUPTS] == "none"
    there = IsolationState(found=found.found, irqs=frozenset({5}), immovable=found.immovable)
    assert there.values[INTERRUPTS] == "irq 25: 5"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        # vfio-isolate issue 3: with control groups version 1 the property is set without effect
        (state(unavailable="AllowedCPUs= needs version 2"), "AllowedCPUs= needs version 2"),
        (state(online="4-11"), "no CPU is left for the host beside the dedicated ones"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(now: IsolationState, said: str) -> None:
    plan = decide(policy("4-11"), now, {})
    assert plan.refused == {"host tasks": said}
    assert not {*UNITS} & {one.setting for one in plan.changes}


def test_services_that_cpuaffinity_keeps_off_are_left_so() -> None:
    """systemd issue 23748: enabling the cpuset controller resets what CPUAffinity= has set."""
    plan = decide(policy("4-11"), state(affinity="0-3"), {})
    assert not {*UNITS} & {one.setting for one in plan.changes}
    assert plan.notes == ("systemd's CPUAffinity=0-3 keeps the host's tasks off already",)
    made = targets(policy("6-7"), state(affinity="0-7"))
    assert made["system.slice AllowedCPUs"] == "0-5 (runtime)", "and never given more"


def test_our_own_confinement_is_not_taken_for_cpuaffinity() -> None:
    now = state(affinity="0-3", found={**units("0-3"), "workqueue cpumask": "0-3"})
    kept = {**dict.fromkeys(UNITS, ""), "workqueue cpumask": "0-11"}
    assert targets(policy("4-11"), now, kept) == {}
    assert decide(policy("4-11"), now, {UNITS[2]: ""}).notes == ()
    made = targets(policy("8-11"), now, kept)
    assert made == {**units("0-7"), "workqueue cpumask": "0-7"}, "the first of two has stopped"


def test_what_the_administrator_has_set_is_narrowed_and_comes_back_as_it_was() -> None:
    """Hooks write back all CPUs by number, which undoes the administrator's own setting."""
    before = {UNITS[0]: "0-7", UNITS[1]: "0-3,8 (runtime)", UNITS[2]: "4-7"}
    plan = decide(policy("4-11"), state(found=before), {})
    made = {one.setting: one.after for one in plan.changes}
    assert {name: made.get(name) for name in UNITS} == {
        UNITS[0]: "0-3 (runtime)",
        UNITS[1]: "0-3 (runtime)",
        UNITS[2]: None,
    }
    assert plan.refused == {UNITS[2]: "4-7: no CPU is left to it beside the dedicated ones"}
    now = state(found={**before, **made})
    assert targets(HostIsolationPolicy(), now, plan.originals) == {
        UNITS[0]: "0-7",
        UNITS[1]: "0-3,8 (runtime)",
        "workqueue cpumask": "0-11",
    }


@pytest.mark.parametrize(
    ("now", "kept", "after"),
    [
        ("0-11", {}, "0-3"),
        ("0-11 (several)", {}, None),  # somebody has pinned one of its threads
        ("8-11", {}, None),  # somebody has pinned all of it
        ("0-3", {GUEST: "0-11"}, None),  # done
        ("0-3 (several)", {GUEST: "0-11"}, "0-3"),
    ],
)
def test_only_guests_that_nobody_has_pinned_are_kept_off(
    now: str, kept: dict[str, str], after: str | None
) -> None:
    made = targets(policy("4-11", "", GUEST), state(found={GUEST: now}), kept)
    assert made.get(GUEST) == after


def test_a_guest_or_interrupt_that_has_gone_is_forgotten() -> None:
    kept = {GUEST: "0-11", "irq 24": "0-11"}
    plan = decide(HostIsolationPolicy(), state(), kept)
    assert (plan.changes, plan.originals, plan.pending) == ((), {}, {})


def test_units_are_put_back_once_systemd_can_and_all_else_that_is_gone_is_forgotten() -> None:
    kept = {GUEST: "0-11", UNITS[0]: "0-7"}
    gone = state(found={UNITS[0]: None}, unavailable="systemd does not answer")
    plan = decide(HostIsolationPolicy(), gone, kept)
    assert plan.pending == {UNITS[0]: "systemd does not answer"}


def test_each_change_says_from_what_and_why_and_what_is_not_taken_is_not_kept() -> None:
    now = state(found={"irq 24": "1"})
    plan = decide(policy("4-11", "4-11"), now, {})
    queue = "workqueue cpumask"
    why = "dedicated guests run on the other CPUs"
    assert Change(queue, queue, "0-11", "0-3", why) in plan.changes
    assert "irq 24" not in plan.originals
    [back] = decide(HostIsolationPolicy(), state(found={queue: "0-3"}), {queue: "0-11"}).changes
    assert back == Change(queue, queue, "0-3", "0-11", "original value")


def test_what_others_have_set_since_is_watched_of_units_and_work_queues() -> None:
    """An interrupt may be moved by anybody, and comes back."""
    names = (UNITS[0], "workqueue cpumask", "irq 24")
    now = IsolationState(found=dict.fromkeys(names, "0-1"), ours=dict.fromkeys(names, "0-3"))
    assert [now.is_others(name) for name in names] == [True, True, False]
    assert not replace(now, ours={}).is_others(UNITS[0])


SOME = st.frozensets(st.integers(0, 11), min_size=1).map(cpuset.text)


@given(first=SOME, second=SOME, before=st.fixed_dictionaries({"irq 24": SOME, UNITS[0]: SOME}))
def test_nobody_is_left_without_a_cpu_and_all_comes_back(
    first: str, second: str, before: dict[str, str]
) -> None:
    """Whatever CPUs are dedicated, one set after another, and whatever the host had before."""
    found = {**state().found, **before}
    kept: dict[str, str] = {}
    for dedicated in (first, second):
        plan = decide(policy(dedicated, dedicated), state(found=found), kept)
        taken = cpuset.parse(dedicated)
        found.update({one.setting: str(one.after) for one in plan.changes})
        kept = {**plan.originals, **{name: kept[name] for name in kept if name in plan.originals}}
        for name in plan.originals.keys() - {"irqbalance banned CPUs"}:
            left = cpuset.parse(found[name].partition(" ")[0])
            assert left, name
            assert not left & taken, name
    plan = decide(HostIsolationPolicy(), state(found=found), kept)
    found.update({one.setting: str(one.after) for one in plan.changes})
    assert found == {**state().found, **before}
