# SPDX-License-Identifier: GPL-2.0-or-later
"""ksmtuned's algorithm: the numbers are those of its script."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.plugins.ksm.controller import decide
from tuned_virt.plugins.ksm.decision import ControllerMemory, Phase, Sample
from tuned_virt.plugins.ksm.ksmtuned import KsmtunedPolicy

GIB = 1 << 20
STOPPED = {"run": "0", "pages_to_scan": "100", "sleep_millisecs": "20"}


def sample(free: int, resident: int, total: int = 16 * GIB, **more: object) -> Sample:
    named = {"now": 0.0, "available": free, "settings": STOPPED, **more}
    return Sample(total=total, free=free, resident=resident, **named)  # type: ignore[arg-type]


def test_plenty() -> None:
    decision = decide(KsmtunedPolicy(), sample(10 * GIB, 2 * GIB), ControllerMemory())
    assert decision.changes == {}
    assert decision.memory.phase is Phase.IDLE
    assert decision.next_look == 60.0


def test_boost_and_decay_within_bounds() -> None:
    memory, seen = ControllerMemory(), []
    for free in (1, 1, 1, 1, 1, 4, 4):
        decision = decide(KsmtunedPolicy(), sample(free * GIB, 14 * GIB), memory)
        memory = decision.memory
        seen.append(memory.npages)
    assert seen == [300, 600, 900, 1200, 1250, 1200, 1150]
    assert decision.why == (
        "decay: guests have 14336 MiB, 4096 MiB of 16384 MiB are free, threshold 3277 MiB"
    )


def test_committed_memory_alone_starts_it_slowly() -> None:
    decision = decide(KsmtunedPolicy(), sample(8 * GIB, 14 * GIB), ControllerMemory())
    assert decision.changes == {"pages_to_scan": "64", "sleep_millisecs": "10", "run": "1"}


def test_small_servers_sleep_longer() -> None:
    decision = decide(KsmtunedPolicy(), sample(100, GIB, total=GIB), ControllerMemory())
    assert decision.changes["sleep_millisecs"] == "160"


def test_the_larger_threshold_holds() -> None:
    assert KsmtunedPolicy().threshold(16 * GIB) == 16 * GIB * 20 // 100
    assert KsmtunedPolicy().threshold(4096) == 2048
    assert KsmtunedPolicy(thres_const=4 * GIB).threshold(16 * GIB) == 4 * GIB


@given(st.lists(st.tuples(st.integers(0, 2**34), st.integers(0, 2**34)), min_size=1))
def test_never_outside_its_bounds_and_settles(figures: list[tuple[int, int]]) -> None:
    policy, memory = KsmtunedPolicy(), ControllerMemory()
    for free, resident in figures:
        memory = decide(policy, sample(free, resident), memory).memory
        assert memory.npages == 0 or policy.npages_min <= memory.npages <= policy.npages_max
    for _ in range(30):
        before, memory = memory, decide(policy, sample(free, resident), memory).memory
    assert memory.npages == before.npages


def test_plenty_is_more_than_the_threshold() -> None:
    """It is 3 GiB of 15."""
    law = KsmtunedPolicy()
    for free, resident, phase in (
        (3 * GIB + 1, 12 * GIB - 1, Phase.IDLE),
        (3 * GIB, 12 * GIB - 1, Phase.STEADY),
        (3 * GIB + 1, 12 * GIB, Phase.STEADY),
    ):
        decision = decide(law, sample(free, resident, total=15 * GIB), ControllerMemory(npages=500))
        assert decision.memory.phase is phase
    at = decide(law, sample(3 * GIB, 14 * GIB, total=15 * GIB), ControllerMemory(npages=500))
    under = decide(law, sample(3 * GIB - 1, 14 * GIB, total=15 * GIB), ControllerMemory(npages=500))
    assert (at.memory.npages, under.memory.npages) == (450, 800)
    assert at.why.startswith("decay: ")
    assert under.why.startswith("boost: ")


def test_it_stops_what_runs() -> None:
    running = {"run": "1", "pages_to_scan": "100", "sleep_millisecs": "20"}
    begun = ControllerMemory(phase=Phase.STEADY, since=3.0, written=(("run", "1"),))
    decision = decide(KsmtunedPolicy(), sample(10 * GIB, 2 * GIB, now=9.0, settings=running), begun)
    assert decision.changes == {"run": "0"}
    assert decision.why == (
        "plenty: guests have 2048 MiB, 10240 MiB of 16384 MiB are free, threshold 3277 MiB"
    )
    assert (decision.memory.phase, decision.memory.since) == (Phase.IDLE, 9.0)
    stays = decide(KsmtunedPolicy(), sample(10 * GIB, 2 * GIB, now=99.0), decision.memory)
    assert stays.memory.since == 9.0


def test_a_boost_of_nothing_is_none() -> None:
    still = KsmtunedPolicy(npages_boost=0)
    assert decide(still, sample(1, 15 * GIB), ControllerMemory()).why.startswith("decay: ")
    one = KsmtunedPolicy(npages_boost=1)
    assert decide(one, sample(1, 15 * GIB), ControllerMemory()).why.startswith("boost: ")


def test_what_somebody_else_has_changed_is_noted() -> None:
    foreign = {"run": "1", "pages_to_scan": "7", "sleep_millisecs": "20"}
    before = ControllerMemory(written=(("pages_to_scan", "100"),))
    decision = decide(
        KsmtunedPolicy(monitor_interval=9), sample(1, 15 * GIB, settings=foreign), before
    )
    assert decision.noted == ("pages_to_scan is '7', not '100': changed by another program",)
    assert decision.next_look == 9.0


def test_servers_of_any_size() -> None:
    assert decide(KsmtunedPolicy(), sample(0, 1, total=1), ControllerMemory()).changes[
        "sleep_millisecs"
    ] == (str(160 * GIB))
    large = decide(
        KsmtunedPolicy(sleep_msec=100), sample(0, 32 * GIB, total=32 * GIB), ControllerMemory()
    )
    assert large.changes["sleep_millisecs"] == "50"
