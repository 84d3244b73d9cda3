# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm `auto` at one look: what it reads from counters, and where it goes from there."""

from __future__ import annotations

from typing import Any

import pytest

from tuned_virt.plugins.ksm import auto
from tuned_virt.plugins.ksm.auto import AutoPolicy
from tuned_virt.plugins.ksm.decision import ControllerMemory, Counters, Decision, Phase, Sample

GIB = 1 << 20
RUNS = {"run": "1", "pages_to_scan": "2857", "sleep_millisecs": "1980"}
STOPPED = {**RUNS, "run": "0"}
EAGER = AutoPolicy(eager=1)
NOW = Counters(now=1000, cpu=50.0, scanned=1_000_000, full_scans=3, merged=50_000)


def seen(**more: Any) -> Sample:
    """A host of 64 GiB with plenty of memory and one guest, 10 s after NOW."""
    usual = {
        "now": 1010.0,
        "total": 64 * GIB,
        "available": 60 * GIB,
        "settings": RUNS,
        "guests": frozenset({"a"}),
        "cpu": 50.0,
        "scanned": 1_000_000,
        "full_scans": 3,
        "merged": 50_000,
        "known": 100_000,
    }
    return Sample(**{**usual, **more})


def after(phase: Phase, **more: Any) -> ControllerMemory:
    usual = {"since": 900.0, "guests": frozenset({"a"}), "begun": NOW, "judged": NOW, "last": NOW}
    return ControllerMemory(phase, **{**usual, **more})


def look(
    phase: Phase, policy: AutoPolicy = EAGER, sample: Sample | None = None, **more: Any
) -> Decision:
    return auto.decide(policy, sample or seen(), after(phase, **more))


# --- the counters ---------------------------------------------------------------------------------


def test_the_first_sample_is_where_counting_begins() -> None:
    sample = seen(now=7.0, cpu=3.0, scanned=40, full_scans=2, merged=9, guests=frozenset(), known=0)
    memory = auto.decide(EAGER, sample, ControllerMemory()).memory
    begun = Counters(7.0, 3.0, 40, 2, 9)
    assert (memory.last, memory.begun, memory.judged, memory.since) == (begun, begun, begun, 7.0)
    none = auto.decide(EAGER, seen(cpu=None, scanned=None), ControllerMemory()).memory.last
    assert none == Counters(1010.0, 0.0, 0, 3, 50_000)


def test_counters_go_on_from_the_last_sample() -> None:
    sample = seen(cpu=50.1, scanned=1_010_000, full_scans=4, merged=50_100)
    memory = look(Phase.MAINTENANCE, sample=sample, cost=4e-6).memory
    assert memory.last is not None
    assert memory.last.cpu == pytest.approx(50.1)
    assert memory.last == Counters(1010.0, memory.last.cpu, 1_010_000, 4, 50_100)
    assert memory.cost == pytest.approx(1e-5)
    [(when, used)] = memory.spent
    assert when == 1010.0
    assert used == pytest.approx(0.1)
    assert memory.begun == memory.judged == NOW


def test_counters_that_go_back_count_nothing() -> None:
    memory = look(Phase.MAINTENANCE, sample=seen(cpu=1.0, scanned=10)).memory
    assert memory.last == Counters(1010.0, 50.0, 1_000_000, 3, 50_000)
    assert memory.spent == ((1010.0, 0.0),)


@pytest.mark.parametrize(("scanned", "cost"), [(999, 4e-6), (1000, 1e-5)])
def test_few_pages_say_nothing_about_their_cost(scanned: int, cost: float) -> None:
    sample = seen(cpu=50.0 + scanned * 1e-5, scanned=1_000_000 + scanned)
    assert look(Phase.MAINTENANCE, sample=sample, cost=4e-6).memory.cost == pytest.approx(cost)


def test_a_minute_is_remembered() -> None:
    spent = ((949.0, 1.0), (950.0, 2.0), (951.0, 3.0))
    memory = look(Phase.MAINTENANCE, sample=seen(), spent=spent).memory
    assert memory.spent == ((951.0, 3.0), (1010.0, 0.0))


def test_pages_that_were_lost_are_no_gain_when_they_are_merged_again() -> None:
    lost = look(Phase.MAINTENANCE, sample=seen(merged=30_000)).memory
    assert lost.judged == Counters(1000, 50.0, 1_000_000, 3, 30_000)


@pytest.mark.parametrize(
    ("settings", "cpu", "scanned", "used"),
    [
        (RUNS, 50.1, 14_285, 0.1),
        (RUNS, None, 14_285, 0.1),
        (STOPPED, 50.1, 0, 0.1),
        ({**RUNS, "sleep_millisecs": "0"}, 59.5, 1_428_500, 9.5),
        ({**RUNS, "sleep_millisecs": "0"}, None, 1_428_571, 10.0),
    ],
    ids=["from the sleeps", "and the cost", "it did not run", "without a sleep", "or a cost"],
)
def test_pages_that_are_not_counted_are_guessed(
    settings: dict[str, str], cpu: float | None, scanned: int, used: float
) -> None:
    sample = seen(settings=settings, cpu=cpu, scanned=None)
    last = look(Phase.MAINTENANCE, sample=sample).memory.last
    assert last is not None
    assert last.scanned - NOW.scanned == pytest.approx(scanned, rel=0.0001)
    assert last.cpu - NOW.cpu == pytest.approx(used, rel=0.001)


# --- short memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "threshold"),
    [(100_000, 20_000), (10_240, 2048), (10_249, 2049), (10_235, 2048), (5_000, 2048)],
)
def test_the_threshold_is_a_fifth_and_at_least_2_mib(total: int, threshold: int) -> None:
    assert AutoPolicy().threshold(total) == threshold


@pytest.mark.parametrize(
    ("more", "short"),
    [
        ({"available": 20 * GIB}, False),
        ({"available": 20 * GIB - 1}, True),
        ({"committed": 80 * GIB}, False),
        ({"committed": 80 * GIB + 1}, True),
        ({"pressure": 9.9}, False),
        ({"pressure": 10.0}, True),
    ],
)
def test_memory_is_short(more: dict[str, Any], short: bool) -> None:
    decision = look(Phase.IDLE, AutoPolicy(), seen(total=100 * GIB, settings=STOPPED, **more))
    assert (decision.memory.phase is Phase.BURST) is short
    assert decision.memory.short is short
    assert decision.why.startswith("memory is short: ") is short


def test_why_memory_is_short() -> None:
    sample = seen(total=10 * GIB, available=GIB, settings=STOPPED)
    why = look(Phase.IDLE, AutoPolicy(), sample).why
    assert why == "memory is short: 1024 MiB available, threshold 2048 MiB"
    waits = look(Phase.IDLE, AutoPolicy(), seen(pressure=12.3, settings=STOPPED))
    assert waits.why == "memory is short: tasks wait for it 12 % of the time"
    assert waits.memory.pressed


@pytest.mark.parametrize(("pressure", "pressed"), [(5.0, True), (4.9, False), (None, False)])
def test_tasks_wait_until_they_wait_half_as_long(pressure: float | None, pressed: bool) -> None:
    memory = look(Phase.MAINTENANCE, sample=seen(pressure=pressure), pressed=True).memory
    assert (memory.pressed, memory.short) == (pressed, pressed)


@pytest.mark.parametrize(
    ("more", "since"),
    [
        ({"available": 30 * GIB}, 1010.0),
        ({"available": 30 * GIB - 1}, None),
        ({"available": 30 * GIB, "committed": 81 * GIB}, None),
    ],
)
def test_memory_is_plentiful_with_half_as_much_again(
    more: dict[str, Any], since: float | None
) -> None:
    memory = look(Phase.MAINTENANCE, sample=seen(total=100 * GIB, **more)).memory
    assert memory.relaxed == since


def test_plentiful_since_it_first_was() -> None:
    assert look(Phase.MAINTENANCE, relaxed=800.0).memory.relaxed == 800.0


# --- what begins a burst --------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.BURST, Phase.MAINTENANCE])
def test_guests_that_start_begin_one(phase: Phase) -> None:
    one = look(phase, sample=seen(guests=frozenset({"a", "b"}), resident=5))
    assert (one.memory.phase, one.why) == (Phase.BURST, "guest b started")
    assert (one.memory.since, one.memory.begun, one.memory.judged) == (
        1010.0,
        one.memory.last,
        one.memory.last,
    )
    assert (one.memory.resident, one.memory.guests) == (
        (5, 5),
        frozenset({"a", "b"}),
    )
    two = look(phase, sample=seen(guests=frozenset({"a", "b", "c"})))
    assert two.why == "2 guests started"


def test_without_need_only_the_eager_begin_one() -> None:
    started = seen(guests=frozenset({"a", "b"}))
    assert look(Phase.MAINTENANCE, AutoPolicy(), started).memory.phase is Phase.MAINTENANCE
    short = seen(guests=frozenset({"a", "b"}), available=GIB)
    assert look(Phase.MAINTENANCE, AutoPolicy(), short, short=True).why == "guest b started"


def test_a_guest_that_ends_begins_none() -> None:
    assert look(Phase.MAINTENANCE, sample=seen(guests=frozenset())).memory.phase is (
        Phase.MAINTENANCE
    )


@pytest.mark.parametrize(
    ("guests", "known", "begins"),
    [(frozenset(), 0, False), (frozenset(), 1, True), (frozenset("a"), 0, True)],
)
def test_a_host_without_anything_to_merge_is_left_alone(
    guests: frozenset[str], known: int, begins: bool
) -> None:
    sample = seen(guests=guests, known=known, available=GIB, settings=STOPPED)
    decision = look(Phase.IDLE, AutoPolicy(), sample, guests=guests)
    assert (decision.memory.phase is Phase.BURST) is begins


@pytest.mark.parametrize(
    ("phase", "begins"), [(Phase.IDLE, True), (Phase.BURST, False), (Phase.MAINTENANCE, True)]
)
def test_guests_that_grow_begin_one_but_not_in_one(phase: Phase, begins: bool) -> None:
    decision = look(phase, sample=seen(resident=2 * GIB), resident=(GIB, 2 * GIB))
    assert (decision.why == "guests have grown by 1024 MiB") is begins


@pytest.mark.parametrize(
    ("more", "begins"),
    [
        ({"short": False}, True),
        ({"short": True}, False),
        ({"short": True, "pressed": True}, False),
    ],
)
def test_memory_that_becomes_short_begins_one_and_being_short_none(
    more: dict[str, Any], begins: bool
) -> None:
    decision = look(Phase.MAINTENANCE, sample=seen(available=GIB), **more)
    assert (decision.memory.phase is Phase.BURST) is begins
    assert decision.memory.dear == 0


def test_tasks_that_begin_to_wait_for_short_memory_begin_one() -> None:
    waits = seen(available=GIB, pressure=20.0)
    assert look(Phase.MAINTENANCE, sample=waits, short=True).memory.phase is Phase.BURST
    still = look(Phase.MAINTENANCE, sample=waits, short=True, pressed=True)
    assert still.memory.phase is Phase.MAINTENANCE


@pytest.mark.parametrize(
    ("gained", "cpu", "dear", "begins"),
    [
        (1000, 0.5, 0, True),
        (999, 0.1, 0, False),
        (1000, 0.51, 0, False),
        (4000, 0.5, 1, True),
        (4000, 0.51, 1, False),
        (16_000, 0.5, 2, True),
        (15_900, 0.5, 2, False),
    ],
)
def test_a_trickle_that_gains_begins_ever_dearer_ones(
    gained: int, cpu: float, dear: int, begins: bool
) -> None:
    moved = seen(cpu=50.0 + cpu, merged=50_000 + gained)
    decision = look(Phase.MAINTENANCE, sample=moved, dear=dear)
    assert decision.why.startswith("contents have changed: slow scanning saved ") is begins
    assert decision.memory.dear == dear + begins


def test_any_other_cause_makes_them_cheap_again() -> None:
    started = seen(guests=frozenset({"a", "b"}))
    assert look(Phase.MAINTENANCE, sample=started, dear=3).memory.dear == 0


@pytest.mark.parametrize(("gained", "dear"), [(1999, 3), (2000, 0)])
def test_and_so_does_one_that_pays(gained: int, dear: int) -> None:
    begun = Counters(900, 49.0, 1_000_000, 3, 50_000 - gained)
    ended = look(Phase.BURST, sample=seen(scanned=1_000_000), begun=begun, dear=3)
    assert ended.why == "ksmd finds nothing to scan"
    assert (ended.memory.phase, ended.memory.dear) == (Phase.MAINTENANCE, dear)


@pytest.mark.parametrize(("known", "fresh"), [(0, True), (1, False)])
def test_a_burst_where_nothing_was_scanned_is_fresh(known: int, fresh: bool) -> None:
    started = seen(guests=frozenset({"a", "b"}), known=known)
    memory = look(Phase.IDLE, sample=started, rest=600.0, scan=9, dry=2).memory
    assert (memory.fresh, memory.rest, memory.scan, memory.dry) == (fresh, 0.0, 0, 0)


# --- what ends it ---------------------------------------------------------------------------------


def ending(
    through: int,
    gained: int,
    cpu: float = 1.0,
    *,
    scans: int = 2,
    judged: int | None = None,
    fresh: bool = False,
) -> str:
    """Why a burst ends: so far through a scan of 100,000 pages after so many whole ones."""
    begun = Counters(900, 0.0, 0, 10, 0)
    mark = Counters(1000, 10.0, 300_000, 10 + (scans if judged is None else judged), 5000)
    last = Counters(1010, 10.0 + cpu, 300_000 + through, 10 + scans, 5000 + gained)
    memory = after(Phase.BURST, begun=begun, judged=mark, last=last, fresh=fresh, scan=100_000)
    step = auto._from_burst(seen(), memory)
    assert step is None or step.phase is Phase.MAINTENANCE
    return step.why if step else ""


@pytest.mark.parametrize(
    ("scans", "through", "ends"),
    [(1, 99_999, ""), (2, 49_999, ""), (2, 50_000, "50%"), (3, 24_999, ""), (3, 25_000, "25%")],
)
def test_half_a_merging_scan_without_gain_or_a_quarter_of_a_later_one(
    scans: int, through: int, ends: str
) -> None:
    assert ending(through, 0, scans=scans) == (ends and f"{ends} of a scan saved 0 MiB")


def test_the_first_scan_of_a_fresh_one_is_not_a_merging_one() -> None:
    assert ending(50_000, 0, scans=1, fresh=True) == "50% of a scan saved 0 MiB"
    assert ending(50_000, 0, scans=0, fresh=True) == ""
    assert ending(25_000, 0, scans=2, fresh=True) == "25% of a scan saved 0 MiB"


@pytest.mark.parametrize(
    ("gained", "cpu", "ends"),
    [(2000, 1.0, False), (1999, 1.0, True), (3999, 2.0, True), (2, 0.0, False), (1, 0.0, True)],
)
def test_it_goes_on_while_it_pays(gained: int, cpu: float, ends: bool) -> None:
    assert bool(ending(60_000, gained, cpu)) is ends


def test_what_it_saved_is_said() -> None:
    assert ending(60_000, 1024) == "60% of a scan saved 4 MiB"


@pytest.mark.parametrize(("scans", "ends"), [(2, False), (3, True)])
def test_the_end_of_a_scan_is_judged_but_the_first_merging_ones(scans: int, ends: bool) -> None:
    assert bool(ending(100_000, 0, scans=scans, judged=scans - 1)) is ends


@pytest.mark.parametrize(
    ("through", "judged", "ends"), [(301_000, 2, False), (301_001, 2, True), (301_001, 1, False)]
)
def test_a_scan_that_takes_three_times_the_known_pages(
    through: int, judged: int, ends: bool
) -> None:
    why = ending(through, 100_000, judged=judged)
    assert why == ("ksmd does not complete a scan" if ends else "")


@pytest.mark.parametrize(("begun", "ends"), [(1000, True), (1000.1, False)])
def test_ten_seconds_without_a_page(begun: float, ends: bool) -> None:
    since = Counters(begun, 50.0, 1_000_000, 3, 50_000)
    step = auto._from_burst(seen(), after(Phase.BURST, begun=since))
    assert (step is not None) is ends


# --- what follows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.BURST, Phase.MAINTENANCE])
@pytest.mark.parametrize(
    ("policy", "relaxed", "idle"),
    [(AutoPolicy(), 710.0, True), (AutoPolicy(), 710.1, False), (EAGER, 710.0, False)],
)
def test_five_minutes_of_plenty_end_what_was_begun_for_need(
    phase: Phase, policy: AutoPolicy, relaxed: float, idle: bool
) -> None:
    sample = seen(scanned=1_000_001)
    decision = look(phase, policy, sample, relaxed=relaxed)
    assert (decision.memory.phase is Phase.IDLE) is idle
    assert decision.memory.phase is (Phase.IDLE if idle else phase)
    if idle:
        assert decision.why == "enough memory is available again"


@pytest.mark.parametrize(
    ("policy", "dry", "available", "idle"),
    [
        (EAGER, 3, 60, True),
        (EAGER, 2, 60, False),
        (EAGER, 3, 1, False),
        (AutoPolicy(), 3, 60, False),
    ],
)
def test_three_looks_without_gain_end_the_trickle(
    policy: AutoPolicy, dry: int, available: int, idle: bool
) -> None:
    decision = look(
        Phase.MAINTENANCE, policy, seen(available=available * GIB), dry=dry, short=available == 1
    )
    assert (decision.memory.phase is Phase.IDLE) is idle
    if idle:
        assert decision.why == "nothing is left to merge and enough memory is available"
        assert decision.changes == {"run": "0"}


@pytest.mark.parametrize(
    ("rest", "longer"), [(0.0, 300), (300.0, 600), (1800.0, 3600), (3600.0, 3600)]
)
def test_rests_are_doubled_up_to_an_hour(rest: float, longer: float) -> None:
    assert look(Phase.MAINTENANCE, dry=3, rest=rest).memory.rest == longer


@pytest.mark.parametrize(
    ("policy", "since", "rest", "more", "scans"),
    [
        (EAGER, 710.0, 300.0, {}, True),
        (EAGER, 710.1, 300.0, {}, False),
        (EAGER, -2590.0, 3600.0, {}, True),
        (EAGER, 0.0, 0.0, {}, False),
        (AutoPolicy(), 0.0, 300.0, {}, False),
        (EAGER, 0.0, 300.0, {"guests": frozenset(), "known": 0}, False),
        (EAGER, 0.0, 300.0, {"guests": frozenset(), "known": 1}, True),
    ],
)
def test_the_eager_look_again_after_a_rest(
    policy: AutoPolicy, since: float, rest: float, more: dict[str, Any], scans: bool
) -> None:
    sample = seen(settings=STOPPED, **more)
    decision = look(Phase.IDLE, policy, sample, since=since, rest=rest)
    assert (decision.memory.phase is Phase.MAINTENANCE) is scans
    if scans:
        assert decision.why == f"scans again after {rest / 60:.0f} minutes"
        assert (decision.memory.rest, decision.memory.dry) == (rest, 0)


def test_run_2_is_noticed_and_its_end_too() -> None:
    unmerged = {**RUNS, "run": "2"}
    off = look(Phase.BURST, sample=seen(settings=unmerged))
    assert (off.memory.phase, off.changes) == (Phase.YIELDED, {})
    assert off.why == "run is 2: another program has unmerged all pages"
    still = look(Phase.YIELDED, sample=seen(settings=unmerged, available=GIB))
    assert (still.memory.phase, still.memory.since, still.why) == (Phase.YIELDED, 900.0, "")
    on = look(Phase.YIELDED, sample=seen(settings=STOPPED, available=GIB))
    assert (on.memory.phase, on.why) == (Phase.IDLE, "run is no longer 2")


def test_the_end_of_a_scan_is_marked() -> None:
    sample = seen(cpu=50.4, scanned=1_090_000, full_scans=4, merged=60_000, resident=7)
    memory = look(Phase.BURST, sample=sample, resident=(5, 6), scan=1).memory
    assert (memory.judged, memory.scan, memory.resident) == (memory.last, 90_000, (6, 7))
    within = look(Phase.BURST, sample=seen(scanned=1_090_000, resident=7), resident=(5, 6), scan=1)
    assert within.memory.judged == NOW
    assert (within.memory.scan, within.memory.resident) == (1, (5, 6))


@pytest.mark.parametrize(
    ("judged", "gained", "dry"), [(950, 999, 2), (950, 1000, 0), (950.1, 0, 1)]
)
def test_a_minute_of_trickle_is_judged(judged: float, gained: int, dry: int) -> None:
    mark = Counters(judged, 40.0, 1_000_000, 3, 50_000 - gained)
    memory = look(Phase.MAINTENANCE, sample=seen(), judged=mark, dry=1).memory
    assert memory.dry == dry
    assert memory.judged == (mark if dry == 1 else memory.last)


# --- the speed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "max_cpu", "cap"), [(4, None, 0.25), (5, None, 0.5), (4, 80, 0.8), (64, 10, 0.1)]
)
def test_the_cap_is_the_hosts_unless_it_is_given(
    cpus: int, max_cpu: int | None, cap: float
) -> None:
    assert AutoPolicy(max_cpu=max_cpu).cap(cpus) == cap


@pytest.mark.parametrize(
    ("dry", "sleep"), [(0, "1980"), (1, "3980"), (2, "7980"), (3, "15980"), (9, "15980")]
)
def test_a_trickle_without_gain_is_halved_and_halved_again(dry: int, sleep: str) -> None:
    foreign = {**RUNS, "sleep_millisecs": "5"}
    decision = look(Phase.MAINTENANCE, AutoPolicy(), seen(settings=foreign), dry=dry)
    assert decision.changes == {"sleep_millisecs": sleep}
    assert decision.why == "a page costs 7.0 µs"


def test_not_while_memory_is_short() -> None:
    foreign = seen(settings={**RUNS, "sleep_millisecs": "5"}, available=GIB)
    assert look(Phase.MAINTENANCE, AutoPolicy(), foreign, dry=3, short=True).changes == {
        "sleep_millisecs": "1980"
    }


def test_a_trickle_is_never_faster_than_a_burst() -> None:
    policy = AutoPolicy(max_cpu=1, maintenance_cpu=5)
    assert look(Phase.MAINTENANCE, policy).changes == {"sleep_millisecs": "2086"}


def test_a_burst_has_a_little_less_than_the_cap() -> None:
    started = seen(guests=frozenset({"a", "b"}))
    assert look(Phase.IDLE, sample=started).changes == {"sleep_millisecs": "23"}
    used = look(Phase.IDLE, sample=started, spent=((1005.0, 28.45),)).changes
    assert used == {"sleep_millisecs": "80"}


def test_the_speed_stays_while_it_is_near_enough() -> None:
    written = {"pages_to_scan": "2500", "sleep_millisecs": "1980", "run": "1"}
    kept = look(
        Phase.MAINTENANCE, AutoPolicy(), seen(settings=written), written=tuple(written.items())
    )
    assert (kept.changes, kept.why) == ({}, "")


def test_a_ksmd_that_runs_without_need_is_stopped() -> None:
    decision = look(Phase.IDLE, AutoPolicy())
    assert (decision.changes, decision.why) == ({"run": "0"}, "enough memory is available")


def test_when_it_looks_again() -> None:
    started = seen(guests=frozenset({"a", "b"}))
    assert look(Phase.IDLE, sample=started).next_look == 0.25
    assert look(Phase.IDLE, sample=started, cost=4e-6).next_look == 1.0
    assert look(Phase.BURST, sample=seen(scanned=1_000_500)).next_look == 1.0
    assert look(Phase.MAINTENANCE).next_look == 10.0
    assert look(Phase.IDLE, AutoPolicy()).next_look == 10.0
