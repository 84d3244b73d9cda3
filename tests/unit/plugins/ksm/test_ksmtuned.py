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
