# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm `auto` on a ksmd in miniature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ksmd import Machine
from tests.unit.seen import COSTLY
from tuned_virt.plugins.ksm import auto, speed
from tuned_virt.plugins.ksm.auto import AutoPolicy
from tuned_virt.plugins.ksm.controller import decide
from tuned_virt.plugins.ksm.decision import ControllerMemory, Counters, Phase, Sample

EAGER = AutoPolicy(eager=True)


def four_guests(alike: float = 0.5, **options: object) -> Machine:
    machine = Machine(**options)  # type: ignore[arg-type]
    for number in range(4):
        machine.start(f"guest{number}", 768, alike)
    return machine


def test_plentiful_memory_is_left_alone() -> None:
    machine = four_guests()
    machine.run_for(AutoPolicy(), 3600)
    assert not any(decision.changes for decision in machine.log)
    assert machine.phases() == ["idle"]


def test_burst_then_maintenance_then_nothing() -> None:
    machine = four_guests()
    machine.run_for(EAGER, 600)
    assert machine.phases() == ["burst", "maintenance", "idle", "maintenance"]
    assert machine.merged > 0.99 * 4 * 768 * 256 * 0.5
    assert machine.log[0].why == "4 guests started"
    whys = [d.why for d in machine.log if d.memory.phase is Phase.IDLE and d.why]
    assert whys[0] == "nothing is left to merge and enough memory is available"


def test_maintenance_falls_to_none() -> None:
    machine = four_guests()
    memory = machine.run_for(EAGER, 60)
    assert memory.phase is Phase.MAINTENANCE
    shares = []
    for _ in range(4):
        before = machine.cpu
        memory = machine.run_for(EAGER, 60, memory)
        shares.append((machine.cpu - before) / 60)
    assert shares[0] <= 0.011
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.001


def test_guests_with_nothing_alike_cost_one_scan_and_a_half() -> None:
    machine = four_guests(alike=0.0)
    before = machine.cpu
    machine.run_for(EAGER, 30)
    assert machine.scanned <= 1.8 * 4 * 768 * 256
    assert any(d.why.endswith("% of a scan saved 0 MiB") for d in machine.log)
    assert machine.cpu - before < 1.8 * 4 * 768 * 256 * machine.cost


@pytest.mark.large
@pytest.mark.parametrize(
    ("cpus", "max_cpu", "cap"), [(2, None, 0.25), (64, None, 0.5), (64, 10, 0.1), (2, 100, 1.0)]
)
def test_the_cap_holds_over_every_minute(cpus: int, max_cpu: int | None, cap: float) -> None:
    machine = four_guests(cpus=cpus)
    policy = AutoPolicy(eager=True, max_cpu=max_cpu)
    memory = machine.run_for(policy, 30)
    machine.cost *= 5
    memory = machine.run_for(policy, 60, memory)
    machine.start("late", 4096, 0.5)
    machine.run_for(policy, 240, memory)
    assert machine.most_in_a_minute() <= cap
    assert machine.most_in_a_minute() > 0.2 * cap


@pytest.mark.parametrize("counts_pages", [True, False])
@pytest.mark.parametrize("shows_cpu", [True, False])
def test_kernels_that_count_less(counts_pages: bool, shows_cpu: bool) -> None:
    machine = four_guests(counts_pages=counts_pages, shows_cpu=shows_cpu)
    machine.run_for(EAGER, 400)
    assert machine.phases()[:3] == ["burst", "maintenance", "idle"]
    assert machine.merged > 0.9 * 4 * 768 * 256 * 0.5
    assert machine.most_in_a_minute() <= 0.5


def test_a_guest_that_starts_brings_a_burst() -> None:
    machine = four_guests()
    memory = machine.run_for(EAGER, 300)
    assert memory.phase is Phase.IDLE
    machine.start("late", 768, 0.5)
    memory = machine.run_for(EAGER, 60, memory)
    assert machine.phases() == ["burst", "maintenance", "idle", "burst", "maintenance"]
    assert machine.merged > 0.99 * 5 * 768 * 256 * 0.5


def test_a_guest_that_fills_its_memory_during_the_burst_for_it_needs_no_other() -> None:
    machine = four_guests()
    memory = machine.run_for(EAGER, 300)
    machine.start("late", 64, 0.5)
    machine.log.clear()
    memory = machine.run_for(EAGER, 1, memory)
    machine.cursor = 0
    machine.guests["late"].pages = 768 * 256
    machine.run_for(EAGER, 60, memory)
    assert machine.phases() == ["burst", "maintenance"]


def test_guests_that_grow_afterwards_bring_a_burst() -> None:
    machine = four_guests()
    memory = machine.run_for(EAGER, 300)
    machine.log.clear()
    machine.guests["guest0"].pages *= 2
    machine.run_for(EAGER, 60, memory)
    assert "guests have grown by 768 MiB" in [decision.why for decision in machine.log]
    assert machine.phases().count("burst") == 1


@pytest.mark.parametrize(
    ("resident_gib", "grown_mib", "bursts"),
    [(10, 1023, False), (10, 1024, True), (1, 255, False), (1, 256, True), (1, 102, False)],
    ids=["under a tenth", "a tenth", "under 256 MiB", "both", "a tenth of little"],
)
def test_growth_must_be_a_tenth_and_256_mib(
    resident_gib: int, grown_mib: int, bursts: bool
) -> None:
    resident = resident_gib << 20
    memory = ControllerMemory(
        phase=Phase.MAINTENANCE, resident=(resident, resident), last=Counters()
    )
    grown = Sample(1.0, 64 << 20, 60 << 20, {}, resident=resident + grown_mib * 1024)
    assert bool(auto._growth(grown, memory)) is bursts


def test_short_memory_begins_and_plentiful_memory_ends() -> None:
    machine = four_guests()
    policy = AutoPolicy()
    memory = machine.run_for(policy, 60)
    machine.available = 6 << 20
    memory = machine.run_for(policy, 120, memory)
    assert memory.phase is Phase.MAINTENANCE
    begun = next(d for d in machine.log if d.memory.phase is Phase.BURST)
    assert begun.why == "memory is short: 6144 MiB available, threshold 13107 MiB"
    machine.available = 60 << 20
    memory = machine.run_for(policy, 299, memory)
    assert memory.phase is Phase.MAINTENANCE
    memory = machine.run_for(policy, 30, memory)
    assert memory.phase is Phase.IDLE
    assert machine.settings["run"] == "0"
    assert machine.log[-1].memory.written


def test_committed_memory_is_the_other_rule() -> None:
    machine = four_guests(committed=60 << 20)
    machine.run_for(AutoPolicy(), 1)
    assert machine.log[0].why == (
        "memory is short: guests may use 61440 MiB of 65536 MiB, threshold 13107 MiB"
    )


def test_short_memory_keeps_the_trickle() -> None:
    machine = four_guests(committed=60 << 20)
    memory = machine.run_for(AutoPolicy(), 3600)
    assert memory.phase is Phase.MAINTENANCE
    before = machine.cpu
    machine.run_for(AutoPolicy(), 600, memory)
    assert 0.008 < (machine.cpu - before) / 600 < 0.0101


def test_moving_pages_bring_a_burst_and_ever_dearer_ones() -> None:
    machine = four_guests(committed=60 << 20)
    memory = machine.run_for(AutoPolicy(), 100)
    machine.merged -= 100_000
    memory = machine.run_for(AutoPolicy(), 60, memory)
    assert any(d.why.startswith("contents have changed: slow scanning saved") for d in machine.log)
    machine.moving = 60
    memory = machine.run_for(AutoPolicy(), 1800, memory)
    calm = len(machine.phases())
    machine.run_for(AutoPolicy(), 7200, memory)
    assert len(machine.phases()) <= calm + 2


def test_a_burst_for_moving_pages_that_does_not_pay_makes_the_next_dearer() -> None:
    machine = four_guests()
    memory = machine.run_for(EAGER, 600)
    machine.moving = 60
    machine.run_for(EAGER, 7200, memory)
    bursts = [d.memory for d in machine.log if d.why.startswith("contents have changed")]
    assert [memory.dear for memory in bursts] == [1, 1, 2, 3], "the first of them paid"


def test_run_2_is_left_alone_until_it_is_changed() -> None:
    machine = four_guests()
    memory = machine.run_for(EAGER, 5)
    machine.settings["run"] = "2"
    memory = machine.run_for(EAGER, 600, memory)
    assert (memory.phase, machine.settings["run"]) == (Phase.YIELDED, "2")
    machine.settings["run"] = "0"
    machine.run_for(EAGER, 30, memory)
    assert machine.phases()[:3] == ["burst", "not managing KSM", "idle"]


def test_what_somebody_else_changes_is_said_and_set_again_once_a_minute() -> None:
    machine = four_guests(committed=60 << 20)
    memory = machine.run_for(AutoPolicy(), 100)
    machine.log.clear()
    for _ in range(30):
        machine.settings["run"] = "0"
        memory = machine.run_for(AutoPolicy(), 10, memory)
    again = [d for d in machine.log if "run" in d.changes]
    assert 4 <= len(again) <= 6
    noted = [remark for d in machine.log for remark in d.noted]
    assert noted[0] == "run is '0', not '1': changed by another program"


def test_nothing_to_scan_is_no_burst_for_ever() -> None:
    machine = Machine(committed=60 << 20)
    machine.start("private", 0, 0)
    memory = machine.run_for(AutoPolicy(), 30)
    assert memory.phase is Phase.MAINTENANCE
    assert "ksmd finds nothing to scan" in [d.why for d in machine.log]


counters = st.integers(0, 2**40)
samples = st.builds(
    Sample,
    now=st.just(0.0),
    total=st.integers(1, 2**34),
    available=st.integers(0, 2**34),
    settings=st.fixed_dictionaries(
        {
            "run": st.sampled_from("012"),
            "pages_to_scan": st.integers(0, 2**32).map(str),
            "sleep_millisecs": st.integers(0, 2**32).map(str),
        }
    ),
    cpus=st.integers(1, 4096),
    free=counters,
    committed=counters,
    resident=counters,
    guests=st.frozensets(st.sampled_from("abcdef")),
    pressure=st.none() | st.floats(0, 100),
    cpu=st.none() | st.floats(0, 1e6),
    scanned=st.none() | counters,
    full_scans=counters,
    merged=counters,
    known=st.integers(0, 2**20) | counters,
)
policies = st.builds(
    AutoPolicy,
    eager=st.booleans(),
    max_cpu=st.none() | st.integers(1, 100),
    maintenance_cpu=st.integers(1, 100),
    thres_coef=st.integers(1, 100),
    thres_const=st.integers(0, 2**40),
)


@given(policies, st.lists(samples, min_size=1, max_size=30), st.data())
def test_never_outside_its_bounds(
    policy: AutoPolicy, seen: list[Sample], data: st.DataObject
) -> None:
    memory, now = ControllerMemory(), 0.0
    for sample in seen:
        now += data.draw(st.floats(0, 100))
        decision = decide(policy, Sample(**{**vars(sample), "now": now}), memory)
        changes = decision.changes
        assert changes.get("run", "0") in ("0", "1")
        assert speed.PAGES[0] <= int(changes.get("pages_to_scan", 64)) <= speed.PAGES[1]
        assert speed.SLEEPS[0] <= int(changes.get("sleep_millisecs", 1)) <= speed.SLEEPS[1]
        assert 0 < decision.next_look <= auto.CALM_LOOK
        if sample.settings["run"] == "2":
            assert not changes
        memory = decision.memory


@COSTLY
@given(policies, samples.filter(lambda sample: sample.known < 2**20))
def test_settles_for_every_constant_input(policy: AutoPolicy, sample: Sample) -> None:
    memory, now, written = ControllerMemory(), 0.0, dict(sample.settings)
    turns = []
    while now < 6000:  # a scan of 2**20 pages at 1 % of a CPU takes 2,300 s
        decision = decide(
            policy, Sample(**{**vars(sample), "now": now, "settings": written}), memory
        )
        written = {**written, **decision.changes}
        now += decision.next_look
        if decision.memory.phase is not memory.phase:
            turns.append(now)
        memory = decision.memory
    late = [turn for turn in turns if turn > now / 2]
    assert len(late) <= 2 * (now / 2) / auto.RESTS[0], "it looks again now and then, no more"
    assert memory.phase is not Phase.BURST


def test_a_cost_that_cannot_be_measured_makes_no_hurry() -> None:
    machine = four_guests(shows_cpu=False, counts_pages=False)
    machine.run_for(AutoPolicy(eager=True, max_cpu=1), 60)
    assert [decision.next_look for decision in machine.log[:3]] == [0.25, 1.0, 1.0]


@COSTLY
@given(
    st.lists(st.tuples(st.integers(16, 2048), st.floats(0, 1)), min_size=1, max_size=5),
    st.sampled_from((EAGER, AutoPolicy(max_cpu=10), AutoPolicy(eager=True, maintenance_cpu=5))),
    st.integers(8, 64),
)
def test_never_two_bursts_without_cause(
    guests: list[tuple[int, float]], policy: AutoPolicy, gib: int
) -> None:
    machine = Machine(available=gib << 20)
    for number, (mib, alike) in enumerate(guests):
        machine.start(f"g{number}", mib, alike)
    machine.run_for(policy, 1800)
    assert machine.phases().count("burst") <= 1
    memory = machine.log[-1].memory
    assert memory.phase is not Phase.BURST
