# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

import pytest

from tuned_virt.core.worker_pool import KeyedWorkerPool


def test_lanes_run_side_by_side() -> None:
    together = threading.Barrier(8, timeout=5)
    lanes = KeyedWorkerPool("test", threads=8, patience=5)
    assert sorted(lanes.run({str(n): together.wait for n in range(8)}).values()) == [*range(8)]
    assert lanes.busy == frozenset()


def test_few_threads_do_many_jobs() -> None:
    lanes = KeyedWorkerPool("test", threads=2, patience=5)
    assert lanes.run({str(n): functools.partial(pow, n, 2) for n in range(300)}) == {
        str(n): n * n for n in range(300)
    }


@pytest.mark.large
def test_a_lane_that_hangs_is_left_and_stays_busy_and_the_others_go_on() -> None:
    drained = threading.Event()
    lanes = KeyedWorkerPool("test", threads=1, patience=0.2)
    began = time.monotonic()
    jobs: dict[str, Callable[[], bool]] = {"dead": drained.wait, "b": bool, "c": bool}
    assert lanes.run(jobs) == {"b": False, "c": False}
    assert time.monotonic() - began < 2
    assert lanes.busy == {"dead"}
    assert lanes.run({"dead": lambda: True, "b": lambda: False}) == {"b": False}
    drained.set()
    while lanes.busy:
        time.sleep(0.01)
    assert lanes.run({"dead": lambda: 1}) == {"dead": 1}


def test_a_run_ends_also_where_everything_hangs() -> None:
    drained = threading.Event()
    lanes = KeyedWorkerPool("test", threads=2, patience=0.05)
    assert lanes.run({str(n): drained.wait for n in range(20)}) == {}
    assert len(lanes.busy) == 6
    drained.set()


@pytest.mark.large
def test_slow_jobs_that_end_one_by_one_are_all_waited_for() -> None:
    lanes = KeyedWorkerPool("test", threads=1, patience=0.3)
    nap = functools.partial(time.sleep, 0.1)
    assert len(lanes.run({str(n): nap for n in range(6)})) == 6


def test_what_a_job_raises_is_raised() -> None:
    def fail() -> int:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        KeyedWorkerPool("test", threads=2, patience=1).run({"a": fail, "b": lambda: 1})


def test_nothing_to_do() -> None:
    assert KeyedWorkerPool("test", threads=2, patience=1).run({}) == {}
