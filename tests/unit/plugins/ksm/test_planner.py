# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.kernel import FRESH, FakeKsm
from tuned_virt.core.engine import Engine, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.options import BadOptions
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan import Plan
from tuned_virt.plugins import ksm
from tuned_virt.plugins.ksm import KsmState, KsmTuner, parse
from tuned_virt.plugins.ksm.conflicts import KsmConflicts
from tuned_virt.plugins.ksm.policy import KsmMode


def state(**changed: str) -> KsmState:
    return KsmState({**FRESH, **changed}, available=10**7)


def writes(plan: Plan) -> list[tuple[str, str]]:
    return [(change.setting, str(change.after)) for change in plan.changes]


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [
        ("run", "7", "one of 0, 1, 2"),
        ("pages_to_scan", "-1", "a whole number from 1 to 1000000 (pages per scan)"),
        ("pages_to_scan", "0", "a whole number from 1 to 1000000 (pages per scan)"),
        ("pages_to_scan", "4294967295", "a whole number from 1 to 1000000 (pages per scan)"),
        ("sleep_millisecs", "0", "a whole number from 1 to 3600000 (ms)"),
        ("advisor_mode", "fast", "one of none, scan-time"),
        ("advisor_max_cpu", "1000", "a whole number from 1 to 100 (percent of one CPU)"),
        ("max_page_sharing", "1", "a whole number from 2 to 2147483647"),
        ("unmerge", "maybe", "one of never, allow, force"),
        ("mode", "fast", "one of off, unmerge, static, ksmtuned, kernel, auto"),
        ("max_cpu", "0", "a whole number from 1 to 100 (percent of one CPU)"),
        ("npages_decay", "50", "a whole number from -1000000 to 0 (pages per scan)"),
        ("thres_coef", ">20", "a whole number from 0 to 100 (percent of all memory)"),
        ("eager", "perhaps", "1 or 0 (yes, no, true, false, on, off)"),
    ],
)
def test_bad_options_are_one_clear_line(option: str, value: str, valid: str) -> None:
    with pytest.raises(BadOptions) as caught:
        parse({option: value})
    assert str(caught.value).startswith(f"option '{option}': '{value}' is not valid: {valid}")


def test_all_bad_options_are_named() -> None:
    with pytest.raises(BadOptions) as caught:
        parse({"run": "7", "sleep_millisecs": "x"})
    assert [error.option for error in caught.value.errors] == ["run", "sleep_millisecs"]


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(BadOptions, match="leave it out while advisor_mode=scan-time"):
        parse({"advisor_mode": "scan-time", "pages_to_scan": "500"})
    with pytest.raises(BadOptions, match="at most advisor_max_pages_to_scan, which is 5"):
        parse({"advisor_min_pages_to_scan": "9", "advisor_max_pages_to_scan": "5"})


def test_empty_options_ask_for_nothing() -> None:
    assert not ksm.plan(parse(dict.fromkeys(ksm.SETTINGS, "")), state(), {}).changes


def test_what_is_right_is_not_written() -> None:
    policy = parse({"run": "1", "pages_to_scan": "100"})
    assert not ksm.plan(policy, state(run="1"), {}).changes


def test_the_advisor_comes_before_pages_to_scan_and_run_last() -> None:
    policy = parse({"run": "1", "pages_to_scan": "900", "advisor_mode": "none", "smart_scan": "0"})
    plan = ksm.plan(policy, state(advisor_mode="scan-time", pages_to_scan="700"), {})
    assert writes(plan) == [
        ("smart_scan", "0"),
        ("advisor_mode", "none"),
        ("pages_to_scan", "900"),
        ("run", "1"),
    ]


def test_the_kernels_reset_of_pages_to_scan_is_made_good() -> None:
    originals = {"advisor_mode": "none", "pages_to_scan": "700"}
    plan = ksm.plan(parse({}), state(advisor_mode="scan-time", pages_to_scan="512"), originals)
    assert writes(plan) == [("advisor_mode", "none"), ("pages_to_scan", "700")]


def test_pages_to_scan_is_refused_while_the_kernel_chooses_it() -> None:
    plan = ksm.plan(parse({"pages_to_scan": "5", "run": "1"}), state(advisor_mode="scan-time"), {})
    assert "add advisor_mode=none" in plan.refused["pages_to_scan"]
    assert writes(plan) == [("run", "1")]


def test_merge_across_nodes_auto() -> None:
    policy = parse({"merge_across_nodes": "auto"})
    assert not ksm.plan(policy, state(), {}).changes
    several = KsmState(FRESH, available=10**7, nodes=2)
    assert writes(ksm.plan(policy, several, {})) == [("merge_across_nodes", "0")]


MERGED = KsmState({**FRESH, "run": "1"}, pages_shared=10, pages_sharing=25600, available=10**6)


def test_merged_pages_and_unmerge_never() -> None:
    plan = ksm.plan(parse({"merge_across_nodes": "0", "use_zero_pages": "1"}), MERGED, {})
    assert writes(plan) == [("use_zero_pages", "1")]
    assert (
        "25600 pages (100 MiB) are merged, and unmerge is never"
        in (plan.refused["merge_across_nodes"])
    )


def test_an_original_that_cannot_be_put_back_is_pending_not_refused() -> None:
    plan = ksm.plan(parse({}), MERGED, {"merge_across_nodes": "0", "run": "0"})
    assert not plan.refused
    assert set(plan.pending) == {"merge_across_nodes"}
    assert writes(plan) == [("run", "0")]


def test_unmerge_allowed_and_it_fits() -> None:
    plan = ksm.plan(parse({"merge_across_nodes": "0", "unmerge": "allow"}), MERGED, {})
    assert writes(plan) == [("run", "2"), ("merge_across_nodes", "0"), ("run", "1")]


def test_unmerge_allowed_and_it_does_not_fit() -> None:
    tight = KsmState(MERGED.values, pages_shared=10, pages_sharing=25600, available=110 * 1024)
    plan = ksm.plan(parse({"merge_across_nodes": "0", "unmerge": "allow"}), tight, {})
    assert not plan.changes
    assert plan.refused["merge_across_nodes"].endswith(
        "unmerging 100 MiB needs 120 MiB available, 110 MiB are"
    )
    assert "needs 120 MiB" in ksm.plan(parse({"run": "2"}), tight, {}).refused["run"]


def test_pages_of_the_dead_are_unmerged_for_nothing() -> None:
    stale = KsmState({**FRESH, "run": "0"}, pages_shared=10, pages_sharing=25600, merging=0)
    plan = ksm.plan(parse({"merge_across_nodes": "0"}), stale, {})
    assert writes(plan) == [("run", "2"), ("merge_across_nodes", "0"), ("run", "0")]


def test_auto_that_the_kernel_refuses_is_a_note() -> None:
    several = KsmState(MERGED.values, pages_shared=10, pages_sharing=25600, nodes=4)
    plan = ksm.plan(parse({"merge_across_nodes": "auto"}), several, {})
    assert not plan.refused
    assert not plan.wanted
    assert "merge_across_nodes cannot become 0" in plan.notes[0]


@pytest.mark.parametrize(
    ("mode", "option", "value"),
    [
        ("auto", "run", "1"),
        ("auto", "pages_to_scan", "100"),
        ("ksmtuned", "sleep_millisecs", "20"),
        ("kernel", "advisor_mode", "none"),
        ("off", "run", "0"),
    ],
)
def test_what_a_mode_decides_is_not_given(mode: str, option: str, value: str) -> None:
    with pytest.raises(BadOptions, match=f"leave it out, mode={mode} controls it"):
        parse({"mode": mode, option: value})


def test_bounds_of_ksmtuned_that_contradict_each_other() -> None:
    with pytest.raises(BadOptions, match="'npages_min': '2000' is not valid: at most npages_max"):
        parse({"mode": "ksmtuned", "npages_min": "2000"})


def test_options_of_another_mode_wait_for_theirs() -> None:
    assert parse({"mode": "off", "max_cpu": "30", "npages_boost": "9"}).algorithm is None


@pytest.mark.parametrize(
    ("mode", "written"),
    [
        ("off", []),
        ("unmerge", [("run", "2")]),
        ("kernel", [("advisor_mode", "scan-time"), ("run", "1")]),
        ("auto", []),
        ("ksmtuned", []),
    ],
)
def test_modes(mode: str, written: list[tuple[str, str]]) -> None:
    assert writes(ksm.plan(parse({"mode": mode}), state(), {})) == written


@pytest.mark.parametrize("mode", ["auto", "ksmtuned"])
def test_a_law_decides_what_is_kept_and_not_written(mode: str) -> None:
    busy = state(run="1", pages_to_scan="700", advisor_mode="scan-time")
    plan = ksm.plan(parse({"mode": mode}), busy, {"run": "0", "sleep_millisecs": "9"})
    assert writes(plan) == [("advisor_mode", "none")]
    assert {"run", "pages_to_scan", "sleep_millisecs"} <= plan.originals.keys()
    assert plan.notes == (f"{mode} controls pages_to_scan, sleep_millisecs, run",)
    back = ksm.plan(parse({}), busy, {"run": "0", "sleep_millisecs": "9"})
    assert writes(back) == [("sleep_millisecs", "9"), ("run", "0")]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (state(run="2"), "run is 2: another program has switched KSM off and unmerged all pages"),
        (KsmState(FRESH, conflicts=KsmConflicts(masked=("ksm.service",))), "ksm.service masked"),
        (
            KsmState(FRESH, conflicts=KsmConflicts(other="MOM (process momd, 5)")),
            "MOM (process momd, 5)",
        ),
    ],
)
def test_auto_keeps_its_hands_off_where_somebody_has_decided(found: KsmState, why: str) -> None:
    plan = ksm.plan(parse({"mode": "auto", "use_zero_pages": "1"}), found, {})
    assert not plan.changes
    assert not plan.originals
    assert plan.notes[0].startswith(f"not managing KSM: {why}")
    assert ksm.plan(parse({"mode": "kernel"}), found, {}).changes, "an explicit choice holds"


def test_the_kernels_advisor_where_there_is_none() -> None:
    old = KsmState({name: value for name, value in FRESH.items() if "advisor" not in name})
    plan = ksm.plan(parse({"mode": "kernel", "use_zero_pages": "1"}), old, {"run": "1"})
    assert writes(plan) == [("run", "1")], "what was there before, and nothing else"
    assert plan.refused["mode"].startswith("kernel: this kernel has no advisor")


def test_unmerging_by_force() -> None:
    tight = KsmState(MERGED.values, pages_shared=10, pages_sharing=25600, available=110 * 1024)
    plan = ksm.plan(parse({"mode": "unmerge"}), tight, {})
    assert plan.refused["run"].endswith("unmerging 100 MiB needs 120 MiB available, 110 MiB are")
    forced = ksm.plan(parse({"mode": "unmerge", "unmerge": "force"}), tight, {})
    assert writes(forced) == [("run", "2")]
    both = ksm.plan(parse({"merge_across_nodes": "0", "unmerge": "force"}), tight, {})
    assert writes(both)[:2] == [("run", "2"), ("merge_across_nodes", "0")]
    assert both.changes[0].why == "unmerges 100 MiB, which the next changes need: about 0.1 s"


def with_services(ksm_service: str, ksmtuned: str, **changed: str) -> KsmState:
    services = {"ksm.service": ksm_service, "ksmtuned.service": ksmtuned}
    return KsmState({**FRESH, **changed}, available=10**7, conflicts=KsmConflicts(services))


def test_services_that_run_are_stopped_first_and_started_again_first() -> None:
    running = with_services("active", "active", run="1")
    plan = ksm.plan(parse({"run": "1", "sleep_millisecs": "50"}), running, {})
    assert writes(plan) == [
        ("ksmtuned.service", "inactive"),
        ("ksm.service", "inactive"),
        ("sleep_millisecs", "50"),
        ("run", "1"),
    ], "stopping ksm.service writes run=0"
    assert plan.originals["ksm.service"] == "active"
    assert plan.wanted["ksmtuned.service"] == "inactive"
    stopped = with_services("inactive", "inactive", run="1", sleep_millisecs="50")
    originals = {**plan.originals, "run": "0"}
    assert writes(ksm.plan(parse({}), stopped, originals)) == [
        ("ksm.service", "active"),
        ("ksmtuned.service", "active"),
        ("sleep_millisecs", "20"),
        ("run", "0"),
    ], "starting ksm.service writes run=1"


def test_run_is_kept_with_the_services_that_write_it() -> None:
    running = with_services("active", "inactive", run="1")
    plan = ksm.plan(parse({"sleep_millisecs": "50"}), running, {})
    assert plan.originals == {"sleep_millisecs": "20", "ksm.service": "active", "run": "1"}
    assert "run" not in ksm.plan(parse({"sleep_millisecs": "50"}), state(run="1"), {}).originals


def test_services_are_left_alone_where_nothing_is_asked_or_they_do_not_run() -> None:
    assert not ksm.plan(parse({}), with_services("active", "active", run="1"), {}).changes
    idle = ksm.plan(parse({"mode": "auto"}), with_services("inactive", "inactive"), {})
    assert not idle.changes
    assert "ksm.service" not in idle.originals


def test_a_law_takes_over_from_the_services() -> None:
    running = with_services("active", "active", run="1")
    plan = ksm.plan(parse({"mode": "auto"}), running, {})
    assert writes(plan) == [("ksmtuned.service", "inactive"), ("ksm.service", "inactive")]


def test_no_ksm_is_a_note_and_an_absent_file_is_missing() -> None:
    assert ksm.plan(parse({"run": "1"}), KsmState({}), {}).notes == ("this kernel has no KSM",)
    old = {name: value for name, value in FRESH.items() if "advisor" not in name}
    plan = ksm.plan(parse({"advisor_mode": "none", "run": "1"}), KsmState(old), {})
    assert set(plan.missing) == {"advisor_mode"}
    assert writes(plan) == [("run", "1")]


NUMBERS = {
    "max_page_sharing": st.integers(2, 2**31 - 1),
    "stable_node_chains_prune_millisecs": st.integers(1, 2**32 - 1),
    "advisor_target_scan_time": st.integers(1, 86400),
    "advisor_max_cpu": st.integers(1, 100),
    "advisor_min_pages_to_scan": st.integers(1, 10**6),
    "advisor_max_pages_to_scan": st.integers(1, 10**6),
    "pages_to_scan": st.integers(1, 10**6),
    "sleep_millisecs": st.integers(1, 3_600_000),
}
WORDS = {
    "run": ("0", "1", "2"),
    "merge_across_nodes": ("0", "1", "auto"),
    "use_zero_pages": ("0", "1"),
    "smart_scan": ("0", "1"),
    "advisor_mode": ("none", "scan-time"),
    "unmerge": ("never", "allow", "force"),
    "mode": tuple(KsmMode),
}
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        **{name: numbers.map(str) for name, numbers in NUMBERS.items()},
        **{name: st.sampled_from(words) for name, words in WORDS.items()},
    },
)
MACHINE = st.fixed_dictionaries(
    {
        **{name: numbers.map(str) for name, numbers in NUMBERS.items()},
        **{
            name: st.sampled_from([w for w in words if w != "auto"])
            for name, words in WORDS.items()
            if name != "mode"
        },
    }
).filter(lambda m: int(m["advisor_min_pages_to_scan"]) <= int(m["advisor_max_pages_to_scan"]))


def engine(folder: Path, fs: FakeKsm) -> Engine[ksm.KsmPolicy, KsmState]:
    return Engine(KsmTuner(), fs, Originals(folder, "boot"), Journal(folder / "journal"))


def without_advised(settings: dict[str, str]) -> dict[str, str]:
    """pages_to_scan is the kernel's own while its advisor runs."""
    if settings["advisor_mode"] == "scan-time":
        return {**settings, "pages_to_scan": ""}
    return settings


@pytest.fixture
def quiet() -> Iterator[None]:
    """pytest keeps every log line of every example, which takes most of the time."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPTIONS, OPTIONS, MACHINE, st.sampled_from([0, 500]), st.integers(1, 4))
def test_apply_and_restore_is_the_identity(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, str],
    second: dict[str, str],
    machine: dict[str, str],
    shared: int,
    nodes: int,
) -> None:
    machine.pop("unmerge")
    fs = FakeKsm(machine, shared=0 if machine["run"] == "2" else shared, nodes=nodes)
    tune = engine(tmp_path_factory.mktemp("run"), fs)
    for options in (first, second):
        try:
            policy = parse(options)
        except BadOptions:
            continue
        outcome = tune.apply(policy)
        assert not outcome.failed, "what the kernel would refuse is not tried"
        findings = list(tune.verify(outcome, policy, ignore_missing=False))
        refused = [f for f in findings if f.result is Result.FAILED]
        assert len(refused) == len(outcome.plan.refused)
        written = len(fs.writes)
        tune.apply(policy)
        assert len(fs.writes) == written, "applying again writes nothing"
    pending = tune.restore().plan.pending
    after, before = without_advised(fs.settings()), without_advised(machine)
    assert {n: v for n, v in after.items() if n not in pending} == {
        n: v for n, v in before.items() if n not in pending
    }
