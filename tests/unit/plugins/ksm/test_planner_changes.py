# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM's plans in full: changes and why, originals, what is refused and what is pending."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.kernel import FRESH
from tuned_virt.core.options import BadOptions, Modifier, WantedValue
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.plugins import ksm
from tuned_virt.plugins.ksm import KsmState, parse
from tuned_virt.plugins.ksm.auto import AutoPolicy
from tuned_virt.plugins.ksm.conflicts import KsmConflicts
from tuned_virt.plugins.ksm.ksmtuned import KsmtunedPolicy
from tuned_virt.plugins.ksm.policy import KsmMode, KsmPolicy, Unmerge

KERNEL = "/sys/kernel/mm/ksm"
ABSENT = "this kernel has no KSM"


def state(*, services: tuple[str, str] | None = None, **changed: str) -> KsmState:
    conflicts = KsmConflicts(
        dict(zip(("ksm.service", "ksmtuned.service"), services)) if services else {}
    )
    return KsmState({**FRESH, **changed}, available=10**7, conflicts=conflicts)


def plan(now: KsmState, originals: Values | None = None, **options: str) -> Plan:
    return ksm.plan(parse(options), now, originals or {})


def bounded(name: str, value: str) -> Plan:
    return ksm.plan(parse({name: value}), state(), {})


def change(
    name: str, before: str, after: str, why: str = "set by the profile", slow: bool = False
) -> Change:
    return Change(name, f"{KERNEL}/{name}", before, after, why, slow)


# --- changes --------------------------------------------------------------------------------------


def test_a_change_in_full() -> None:
    made = plan(state(), {"smart_scan": "0"}, pages_to_scan="900", run="1")
    assert made.changes == (
        change("smart_scan", "1", "0", "original value"),
        change("pages_to_scan", "100", "900"),
        change("run", "0", "1"),
    )
    assert made.originals == {"pages_to_scan": "100", "run": "0"}
    assert made.wanted == {"pages_to_scan": "900", "run": "1"}
    assert (made.refused, made.missing, made.pending, made.notes) == ({}, {}, {}, ())


def test_modifiers_are_relative_to_the_original() -> None:
    now = state(pages_to_scan="5000")
    assert plan(now, {"pages_to_scan": "100"}, pages_to_scan=">900").wanted == {
        "pages_to_scan": "900"
    }
    assert plan(now, pages_to_scan=">900").wanted == {"pages_to_scan": "5000"}


def test_run_2_takes_long_where_pages_are_shared() -> None:
    shared = replace(state(run="1"), pages_shared=1, pages_sharing=1)
    assert plan(shared, run="2").changes == (change("run", "1", "2", slow=True),)
    assert plan(state(run="1"), run="2").changes == (change("run", "1", "2"),)
    zero = replace(state(run="1"), pages_shared=1)
    assert plan(zero, run="0").changes == (change("run", "1", "0"),)


def test_services_are_stopped_and_started_with_their_reasons() -> None:
    running = state(services=("active", "active"), run="1")
    why = "conflicting service"
    stopped = plan(running, run="1")
    assert stopped.changes == (
        Change("ksmtuned.service", "ksmtuned.service", "active", "inactive", why, slow=True),
        Change("ksm.service", "ksm.service", "active", "inactive", why, slow=True),
        change("run", "0", "1"),
    )
    originals = {**stopped.originals, "run": "0"}
    assert originals == {"ksm.service": "active", "ksmtuned.service": "active", "run": "0"}
    back = plan(state(services=("inactive", "inactive"), run="0"), originals)
    before = "original value"
    assert back.changes == (
        Change("ksm.service", "ksm.service", "inactive", "active", before, slow=True),
        Change("ksmtuned.service", "ksmtuned.service", "inactive", "active", before, slow=True),
        change("run", "1", "0", before),
    )


def test_ksmtuned_alone_does_not_change_run() -> None:
    now = state(services=("inactive", "active"), run="1")
    assert [one.setting for one in plan(now, run="1").changes] == ["ksmtuned.service"]


def test_a_service_that_was_stopped_by_us_stays_stopped() -> None:
    now = state(services=("inactive", "inactive"))
    kept = {"ksm.service": "active", "ksmtuned.service": "inactive"}
    made = plan(now, kept, run="1")
    assert made.wanted["ksm.service"] == "inactive"
    assert [one.setting for one in made.changes] == ["run"]


def test_run_stays_as_it_is_where_nothing_names_it() -> None:
    running = state(services=("active", "inactive"), run="1")
    made = plan(running, sleep_millisecs="50")
    assert made.changes[-1] == change("run", "0", "1", "original value")
    assert plan(running, mode="auto").changes[-1].setting == "ksm.service", "its law decides"


# --- the advisor ----------------------------------------------------------------------------------


def test_the_advisor_resets_pages_to_scan() -> None:
    now = state(advisor_mode="scan-time", pages_to_scan="512")
    made = plan(now, {"advisor_mode": "none", "pages_to_scan": "700"})
    before = "original value"
    assert made.changes == (
        change("advisor_mode", "scan-time", "none", before),
        change("pages_to_scan", "100", "700", before),
    )


def test_pages_to_scan_is_left_to_the_advisor() -> None:
    made = plan(state(), {"pages_to_scan": "700"}, advisor_mode="scan-time", run="1")
    assert [one.setting for one in made.changes] == ["advisor_mode", "run"]


@pytest.mark.parametrize(
    ("advisor", "originals", "kept"),
    [
        ("none", {}, True),
        ("scan-time", {}, False),
        ("scan-time", {"pages_to_scan": "1"}, True),
    ],
)
def test_pages_to_scan_is_kept_where_it_is_an_administrators(
    advisor: str, originals: dict[str, str], kept: bool
) -> None:
    made = plan(state(advisor_mode=advisor), originals, advisor_mode="none")
    assert ("pages_to_scan" in made.originals) is kept
    assert plan(state(), run="1").originals == {"run": "0"}


def test_bounds_of_the_advisor_that_cross() -> None:
    low, high = "advisor_min_pages_to_scan", "advisor_max_pages_to_scan"
    why = f"{low} would be 40000, over {high}, which would be 30000"
    assert bounded(low, "40000").refused == {low: why}
    assert bounded(low, "30000").refused == {}
    why = f"{low} would be 500, over {high}, which would be 400"
    assert bounded(high, "400").refused == {high: why}
    assert plan(state(), {high: "400"}).pending == {high: why}


def test_pages_to_scan_that_the_advisor_chooses_is_refused() -> None:
    made = plan(state(advisor_mode="scan-time"), pages_to_scan="5")
    assert made.refused == {
        "pages_to_scan": "the kernel's advisor controls it (advisor_mode is scan-time); add"
        " advisor_mode=none"
    }


def test_a_kernel_without_advisor() -> None:
    old = KsmState({name: value for name, value in FRESH.items() if "advisor" not in name})
    made = ksm.plan(parse({"mode": "kernel", "smart_scan": "0"}), old, {"run": "1"})
    assert made.refused == {
        "mode": "kernel: this kernel has no advisor (6.8 and later have one); use auto or static"
    }
    assert made.changes == (change("run", "0", "1", "original value"),)
    auto = ksm.plan(parse({"mode": "auto"}), old, {})
    assert "advisor_mode" not in auto.wanted
    missing = ksm.plan(parse({"advisor_max_cpu": "5"}), old, {}).missing
    assert missing == {"advisor_max_cpu": f"this kernel has no {KERNEL}/advisor_max_cpu"}


# --- laws -----------------------------------------------------------------------------------------


def test_a_law_decides_on_three_settings_and_they_are_kept() -> None:
    made = plan(state(run="1"), {"pages_to_scan": "5"}, mode="auto")
    assert made.changes == ()
    assert made.originals == {
        "advisor_mode": "none", "pages_to_scan": "100", "sleep_millisecs": "20", "run": "1",
    }  # fmt: skip
    assert made.wanted == {"advisor_mode": "none"}
    assert made.notes == ("auto controls pages_to_scan, sleep_millisecs, run",)


KUBEVIRT = KsmConflicts(other="KubeVirt", on_request="ksmConfiguration")


@pytest.mark.parametrize(
    ("now", "originals", "why"),
    [
        (
            state(run="2"),
            {},
            "run is 2: another program has switched KSM off and unmerged all pages",
        ),
        (
            state(run="1"),
            {"run": "2"},
            "run is 2: another program has switched KSM off and unmerged all pages",
        ),
        (
            replace(state(), conflicts=KsmConflicts(masked=("ksm.service", "ksmtuned.service"))),
            {},
            "ksm.service and ksmtuned.service masked: an administrator has disabled KSM",
        ),
        (replace(state(), conflicts=KsmConflicts(other="MOM")), {}, "MOM controls KSM"),
        (replace(state(), conflicts=KUBEVIRT), {"run": "1"}, "KubeVirt controls KSM"),
        (
            replace(state(), conflicts=KsmConflicts(disabled="KSM_ENABLED=0 in /etc/x")),
            {},
            "KSM_ENABLED=0 in /etc/x: an administrator has disabled KSM",
        ),
    ],
)
def test_auto_leaves_ksm_to_who_has_decided(
    now: KsmState, originals: dict[str, str], why: str
) -> None:
    made = plan(now, originals, mode="auto")
    assert made.notes[0] == f"not managing KSM: {why}"
    assert (made.wanted, made.refused) == ({}, {})
    assert plan(now, originals, mode="ksmtuned").notes == (
        "ksmtuned controls pages_to_scan, sleep_millisecs, run",
    )


def test_auto_controls_ksm_beside_a_kubevirt_that_does_not() -> None:
    for now, originals in ((state(), {}), (state(run="1"), {"run": "0"})):
        made = plan(replace(now, conflicts=KUBEVIRT), originals, mode="auto")
        assert made.notes == (
            "auto controls pages_to_scan, sleep_millisecs, run",
            "KubeVirt sets KSM too where its cluster has ksmConfiguration; then leave KSM to it"
            " with mode=static",
        )
        assert made.originals.keys() >= {"run"}


def test_what_was_unmerged_by_us_is_no_ones_decision() -> None:
    assert plan(state(run="2"), {"run": "1"}, mode="auto").notes == (
        "auto controls pages_to_scan, sleep_millisecs, run",
    )


def test_no_ksm() -> None:
    made = ksm.plan(parse({"run": "1"}), KsmState({}), {"run": "0", "smart_scan": "1"})
    assert made == Plan(notes=(ABSENT,), pending={"run": ABSENT, "smart_scan": ABSENT})


# --- unmerging ------------------------------------------------------------------------------------

MERGED = replace(state(run="1"), pages_shared=10, pages_sharing=25600)
"""100 MiB, for which 120 MiB must be available."""


def test_what_needs_unmerging_waits_where_that_is_not_allowed() -> None:
    why = (
        "merge_across_nodes cannot become 0: the kernel refuses it while 25600 pages (100 MiB) are"
        " merged, and unmerge is never"
    )
    assert plan(MERGED, merge_across_nodes="0").refused == {"merge_across_nodes": why}
    assert plan(MERGED, {"merge_across_nodes": "0"}).pending == {"merge_across_nodes": why}
    several = replace(MERGED, nodes=2)
    lenient = plan(several, merge_across_nodes="auto")
    assert (lenient.refused, lenient.notes) == ({}, (why,))


@pytest.mark.parametrize(("available", "fits"), [(122880, True), (122879, False)])
def test_unmerging_needs_the_memory(available: int, fits: bool) -> None:
    now = replace(MERGED, available=available)
    why = "cannot become {}: unmerging 100 MiB needs 120 MiB available, 119 MiB are"
    made = plan(now, merge_across_nodes="0", unmerge="allow")
    assert made.refused == (
        {} if fits else {"merge_across_nodes": f"merge_across_nodes {why.format(0)}"}
    )
    stop = plan(now, run="2")
    assert stop.refused == ({} if fits else {"run": f"run {why.format(2)}"})
    assert not plan(now, run="2", unmerge="force").refused


def test_unmerging_is_kept_to_on_the_way_back_from_a_mode() -> None:
    now = replace(MERGED, conflicts=KsmConflicts(other="MOM"))
    made = plan(now, {"merge_across_nodes": "0"}, mode="auto", unmerge="allow")
    assert made.changes[0].after == "2"
    assert made.pending == {}
    never = plan(now, {"merge_across_nodes": "0"}, mode="auto")
    assert never.pending.keys() == {"merge_across_nodes"}


def test_unmerging_for_a_setting() -> None:
    made = plan(replace(MERGED, nodes=2), merge_across_nodes="0", unmerge="allow")
    cost = (
        "unmerges 100 MiB, which the next changes need: about 0.1 s; their copies are spread over"
        " all NUMA nodes"
    )
    assert made.changes == (
        change("run", "1", "2", cost, slow=True),
        change("merge_across_nodes", "1", "0"),
        change("run", "2", "1", "original value"),
    )
    alone = plan(MERGED, merge_across_nodes="0", unmerge="allow")
    assert alone.changes[0].why == "unmerges 100 MiB, which the next changes need: about 0.1 s"


def test_pages_that_nobody_has_merged_any_more_cost_nothing() -> None:
    left = replace(MERGED, merging=0, available=0)
    assert not plan(left, merge_across_nodes="0").refused
    zero = replace(left, zero_pages=25600)
    assert zero.saved == 100 << 10
    assert plan(zero, merge_across_nodes="0").refused
    assert replace(MERGED, zero_pages=256).saved == 101 << 10


# --- what may be asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({}, KsmPolicy({})),
        ({"run": "1", "unmerge": "force"}, KsmPolicy({"run": "1"}, Unmerge.FORCE)),
        (
            {"pages_to_scan": "> 5"},
            KsmPolicy({"pages_to_scan": WantedValue(5, Modifier.AT_LEAST)}),
        ),
        ({"mode": "off"}, KsmPolicy({"run": "0"}, mode=KsmMode.OFF)),
        ({"mode": "unmerge"}, KsmPolicy({"run": "2"}, mode=KsmMode.UNMERGE)),
        (
            {"mode": "kernel"},
            KsmPolicy({"advisor_mode": "scan-time", "run": "1"}, mode=KsmMode.KERNEL),
        ),
        (
            {"mode": "auto", "max_cpu": "10", "eager": "yes", "npages_min": "5"},
            KsmPolicy({}, mode=KsmMode.AUTO, algorithm=AutoPolicy(eager=1, max_cpu=10)),
        ),
        (
            {"mode": "ksmtuned", "npages_decay": "-5", "max_cpu": "10"},
            KsmPolicy({}, mode=KsmMode.KSMTUNED, algorithm=KsmtunedPolicy(npages_decay=-5)),
        ),
    ],
)
def test_policies(options: dict[str, str], policy: KsmPolicy) -> None:
    assert parse(options) == policy


def test_what_asks_for_nothing() -> None:
    assert not parse({"unmerge": "allow"}).asks
    assert parse({"mode": "auto"}).asks
    assert parse({"run": "0"}).asks


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"mode": "auto", "run": "1"},
            [
                "option 'run': '1' is not valid: leave it out, mode=auto controls it (or"
                " mode=static)"
            ],
        ),
        (
            {"mode": "kernel", "pages_to_scan": ">5"},
            [
                "option 'pages_to_scan': '>5' is not valid: leave it out, mode=kernel controls it"
                " (or mode=static)"
            ],
        ),
        (
            {"npages_min": "1251"},
            ["option 'npages_min': '1251' is not valid: at most npages_max, which is 1250"],
        ),
        (
            {"npages_max": "63"},
            ["option 'npages_min': '64' is not valid: at most npages_max, which is 63"],
        ),
        (
            {"advisor_mode": "scan-time", "pages_to_scan": "5", "npages_max": "63"},
            [
                "option 'pages_to_scan': '5' is not valid: leave it out while "
                "advisor_mode=scan-time controls it",
                "option 'npages_min': '64' is not valid: at most npages_max, which is 63",
            ],
        ),
        (
            {"advisor_min_pages_to_scan": "6", "advisor_max_pages_to_scan": "5"},
            [
                "option 'advisor_min_pages_to_scan': '6' is not valid: at most"
                " advisor_max_pages_to_scan, which is 5"
            ],
        ),
    ],
)
def test_what_contradicts_itself(options: dict[str, str], why: list[str]) -> None:
    with pytest.raises(BadOptions) as caught:
        parse(options)
    assert [str(one) for one in caught.value.errors] == why


def test_equal_bounds_contradict_nothing() -> None:
    parse({"advisor_min_pages_to_scan": "5", "advisor_max_pages_to_scan": "5"})
    parse({"npages_min": "1250"})
    parse({"npages_max": "64"})
