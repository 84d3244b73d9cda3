# SPDX-License-Identifier: GPL-2.0-or-later
"""From a policy to KSM's settings: the writes, what the kernel or the memory does not allow, and
why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tuned_virt.core.options import WantedValue
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.plugins.ksm.conflicts import ACTIVE, INACTIVE, KSM_SERVICE, KsmConflicts
from tuned_virt.plugins.ksm.decision import CONTROLLED
from tuned_virt.plugins.ksm.memory_cgroups import MemoryCgroup
from tuned_virt.plugins.ksm.policy import KsmMode, KsmPolicy, Unmerge
from tuned_virt.plugins.ksm.state import FOLDER, SETTINGS, UNMERGED_FIRST, KsmState

MARGIN = 1.2
"""Unmerging wants this many times the merged memory to be available."""

NO_ADVISOR = "kernel: this kernel has no advisor (6.8 and later have one); use auto or static"


def plan(policy: KsmPolicy, state: KsmState, originals: Values) -> Plan:
    """The writes that take KSM from `state` to the policy, with kept originals put back.

    Settings of `originals` that the policy does not name are put back; what the kernel or the
    memory does not allow now is refused (if asked for) or pending (if an original). What an
    algorithm decides is kept for the way back, and not written here.
    """
    if not state.values:
        absent = "this kernel has no KSM"
        return Plan(notes=(absent,), pending=dict.fromkeys(originals, absent))
    why = _hands_off(policy, state, originals)
    if why:
        nothing = plan(policy.undoing, state, originals)
        return replace(nothing, notes=(f"not managing KSM: {why}", *nothing.notes))
    if policy.mode is KsmMode.KERNEL and "advisor_mode" not in state.values:
        nothing = plan(policy.undoing, state, originals)
        return replace(nothing, refused={"mode": NO_ADVISOR})
    asked, missing = _asked(policy, state, originals)
    left = (*asked, *CONTROLLED) if policy.algorithm else asked
    back = {name: value for name, value in originals.items() if name not in left}
    targets = {**back, **asked}
    hindered = _hindered(policy, state, targets, asked)
    targets = {name: value for name, value in targets.items() if name not in hindered}
    if not policy.algorithm:
        targets.setdefault("run", state.values["run"])
    changes = _changes(state, targets, asked)
    return Plan(
        changes=tuple(changes),
        originals=_claimed(policy, asked, state, originals),
        wanted={name: value for name, value in asked.items() if name not in hindered},
        refused={name: why for name, why in hindered.items() if name in _insisted(policy)},
        missing=missing,
        pending={name: why for name, why in hindered.items() if name in back},
        notes=(
            *_algorithm_notes(policy, state.conflicts),
            *(hindered[name] for name in hindered if _lenient(policy, name)),
        ),
    )


def _algorithm_notes(policy: KsmPolicy, conflicts: KsmConflicts) -> Iterable[str]:
    if policy.algorithm:
        yield f"{policy.mode.value} controls {', '.join(CONTROLLED)}"
        if policy.mode is KsmMode.AUTO and conflicts.on_request:
            yield (
                f"{conflicts.other} sets KSM too where its cluster has {conflicts.on_request}; then"
                " leave KSM to it with mode=static"
            )


def _hands_off(policy: KsmPolicy, state: KsmState, originals: Values) -> str:
    """Why KSM is left alone: mode=auto is the default, and somebody has decided otherwise."""
    if policy.mode is not KsmMode.AUTO:
        return ""
    run = originals.get("run", state.values["run"])
    if run == "2":
        return "run is 2: another program has switched KSM off and unmerged all pages"
    return state.conflicts.in_use(run).hands_off


def _asked(
    policy: KsmPolicy, state: KsmState, originals: Values
) -> tuple[dict[str, str], dict[str, str]]:
    asked: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, wanted in policy.settings.items():
        if name not in state.values:
            missing[name] = f"this kernel has no {FOLDER}/{name}"
        elif isinstance(wanted, WantedValue):
            asked[name] = wanted.against(originals.get(name, state.values[name]))
        elif wanted != "auto":
            asked[name] = wanted
        elif state.nodes > 1:
            asked[name] = "0"
    if policy.algorithm and "advisor_mode" in state.values:
        asked["advisor_mode"] = "none"
    for unit, found in state.conflicts.services.items():
        if policy.asks and (found == ACTIVE or unit in originals):
            asked[unit] = INACTIVE
    return asked, missing


def _insisted(policy: KsmPolicy) -> set[str]:
    return {name for name in policy.settings if not _lenient(policy, name)}


def _lenient(policy: KsmPolicy, name: str) -> bool:
    return policy.settings.get(name) == "auto"


def _claimed(
    policy: KsmPolicy, asked: Values, state: KsmState, originals: Values
) -> dict[str, str]:
    """Values to keep: what is asked for or the algorithm decides, and what changes with it."""
    now = _now(state)
    claimed = {name: now[name] for name in (*asked, *(CONTROLLED if policy.algorithm else ()))}
    if state.conflicts.services.keys() & asked.keys():
        claimed["run"] = now["run"]
    advised = state.values.get("advisor_mode") == "scan-time"
    if "advisor_mode" in asked and (not advised or "pages_to_scan" in originals):
        claimed["pages_to_scan"] = state.values["pages_to_scan"]
    return claimed


def _hindered(policy: KsmPolicy, state: KsmState, targets: Values, asked: Values) -> dict[str, str]:
    """Settings that cannot be written now, with the reason."""
    return {
        **_hindered_by_advisor(state, targets, asked),
        **_hindered_by_merged(policy, state, targets),
    }


def _hindered_by_advisor(state: KsmState, targets: Values, asked: Values) -> dict[str, str]:
    then = {**state.values, **targets}
    if "advisor_mode" not in then:
        return {}
    hindered = {}
    if then["advisor_mode"] == "scan-time" and "pages_to_scan" in asked:
        hindered["pages_to_scan"] = (
            "the kernel's advisor controls it (advisor_mode is scan-time); add advisor_mode=none"
        )
    low, high = "advisor_min_pages_to_scan", "advisor_max_pages_to_scan"
    if int(then[low]) > int(then[high]):
        blamed = low if low in asked else high
        hindered[blamed] = f"{low} would be {then[low]}, over {high}, which would be {then[high]}"
    return hindered


def _hindered_by_merged(policy: KsmPolicy, state: KsmState, targets: Values) -> dict[str, str]:
    stopping = targets.get("run") == "2"
    if not state.pages_shared and not (stopping and state.zero_pages):
        return {}
    why = _does_not_fit(policy, state) if stopping else _may_not_unmerge(policy, state)
    settings = [*_unmerging(state.values, targets), *(["run"] if stopping else [])]
    return {name: f"{name} cannot become {targets[name]}: {why}" for name in settings if why}


def _unmerging(now: Values, targets: Values) -> list[str]:
    """Settings about to change that the kernel refuses while pages are shared."""
    return [name for name in UNMERGED_FIRST if targets.get(name, now.get(name)) != now.get(name)]


def _may_not_unmerge(policy: KsmPolicy, state: KsmState) -> str:
    if policy.unmerge is Unmerge.NEVER and state.merging != 0:
        return (
            f"the kernel refuses it while {state.pages_sharing} pages ({state.saved // 1024} MiB)"
            " are merged, and unmerge is never"
        )
    return _does_not_fit(policy, state)


def _does_not_fit(policy: KsmPolicy, state: KsmState) -> str:
    """Why unmerging would take more memory than the host, or a cgroup, has; "" where it fits.

    Force is for hosts with swap: a cgroup's limit is kept by killing.
    """
    needed = int(state.saved * MARGIN)
    if needed > state.available and policy.unmerge is not Unmerge.FORCE:
        return (
            f"unmerging {state.saved // 1024} MiB needs {needed // 1024} MiB available,"
            f" {state.available // 1024} MiB are"
        )
    return next(filter(None, (_over_limit(group, state.saved) for group in state.cgroups)), "")


def _over_limit(group: MemoryCgroup, saved: int) -> str:
    """The same of one cgroup. No group grows by more than all unmerging together takes, as the
    merged page of each is charged to one of those that have merged it."""
    grows = min(group.merged, saved)
    needed = int(grows * MARGIN)
    if needed <= group.available:
        return ""
    return (
        f"unmerging {grows // 1024} MiB of memory cgroup {group.name} needs {needed // 1024} MiB"
        f" available in it, {group.available // 1024} MiB are (limit {group.limit // 1024} MiB,"
        f" {group.used // 1024} used, {group.cache // 1024} of it cache): the kernel would kill"
        " its processes; raise the limit or stop guests in it"
    )


def _changes(state: KsmState, targets: Values, asked: Values) -> Iterable[Change]:
    services = _service_changes(state, targets)
    yield from services
    run = _run_after(services, state)
    yield from _setting_changes(state, {"run": run, **targets}, asked, {**state.values, "run": run})


def _service_changes(state: KsmState, targets: Values) -> list[Change]:
    """The services to start or stop: ksmtuned requires ksm."""
    now = state.conflicts.services
    units = [unit for unit in now if targets.get(unit, now[unit]) != now[unit]]
    stopped = [_service(unit, INACTIVE) for unit in reversed(units) if targets[unit] == INACTIVE]
    return [*stopped, *(_service(unit, ACTIVE) for unit in units if targets[unit] == ACTIVE)]


def _service(unit: str, after: str) -> Change:
    if after == INACTIVE:
        return Change(unit, unit, ACTIVE, INACTIVE, "conflicting service", slow=True)
    return Change(unit, unit, INACTIVE, ACTIVE, "original value", slow=True)


def _run_after(services: Iterable[Change], state: KsmState) -> str:
    """What run is once the services are as planned."""
    for change in services:
        if change.setting == KSM_SERVICE:
            return "1" if change.after == ACTIVE else "0"
    return state.values["run"]


def _setting_changes(
    state: KsmState, targets: Values, asked: Values, now: dict[str, str]
) -> Iterable[Change]:
    def to(name: str, value: str, why: str) -> Change:
        slow = (name, value) == ("run", "2") and state.pages_sharing + state.zero_pages > 0
        change = Change(name, f"{FOLDER}/{name}", now[name], value, why, slow)
        now[name] = value
        return change

    if state.pages_shared and _unmerging(now, targets):
        yield to("run", "2", _unmerge_cost(state))
    for name in SETTINGS:
        target = targets.get(name)
        if target is None or name not in now or now[name] == target:
            continue
        if name == "pages_to_scan" and now.get("advisor_mode") == "scan-time":
            continue
        yield to(name, target, "set by the profile" if name in asked else "original value")
        if name == "advisor_mode" and target == "none":
            now["pages_to_scan"] = "100"


def _now(state: KsmState) -> dict[str, str]:
    return {**state.conflicts.services, **state.values}


def _unmerge_cost(state: KsmState) -> str:
    gib = state.saved / 2**20
    cost = f"unmerges {state.saved // 1024} MiB, which the next changes need: about {gib:.1f} s"
    if state.nodes > 1 and state.saved:
        cost += "; their copies are spread over all NUMA nodes"
    return cost
