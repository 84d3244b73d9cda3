# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page costs, what an interval may use, and which batches and sleeps use it."""

from __future__ import annotations

import pytest

from tuned_virt.plugins.ksm import speed
from tuned_virt.plugins.ksm.decision import ControllerMemory, Counters


@pytest.mark.parametrize(
    ("before", "cpu", "scanned", "found"),
    [
        (2e-6, 4.0, 1_000_000, 4e-6),
        (4e-6, 2.0, 1_000_000, 3e-6),
        (4e-6, 4.0, 1_000_000, 4e-6),
        (0.0, 9.0, 1000, 5e-5),
        (2e-7, 0.0, 1000, 2e-7),
    ],
    ids=["dearer at once", "cheaper by half", "the same", "at most", "at least"],
)
def test_what_a_page_costs(before: float, cpu: float, scanned: int, found: float) -> None:
    assert speed.cost(before, cpu, scanned) == pytest.approx(found)


@pytest.mark.parametrize(
    ("spent", "interval", "share"),
    [
        ([], 10, 0.5),
        ([(1000, 20.0)], 10, 0.5),
        ([(990, 8.0), (1000, 20.0)], 10, 0.2),
        ([(950, 25.0), (1000, 26.0)], 10, 0.4),
        ([(951, 25.0), (1000, 3.0)], 10, 0.2),
        ([(1000, 29.0)], 1, 0.5),
        ([(1000, 29.5)], 2, 0.25),
        ([(1000, 31.0)], 10, 0.0),
    ],
    ids=[
        "nothing used",
        "enough left",
        "all of the minute counts",
        "what is a minute old at the next look does not",
        "what is not does",
        "half a second in a second",
        "half a second in two",
        "more than the cap was used",
    ],
)
def test_what_the_next_interval_may_use(
    spent: list[tuple[float, float]], interval: float, share: float
) -> None:
    memory = ControllerMemory(last=Counters(now=1000), spent=tuple(spent))
    assert speed.allowance(0.5, memory, interval) == pytest.approx(share)


@pytest.mark.parametrize(
    ("share", "cost", "batch"),
    [
        (0.5, 4e-6, (5000, 20)),
        (0.01, 4e-6, (5000, 1980)),
        (0.01, 3e-6, (6666, 1980)),
        (1.0, 4e-6, (5000, 1)),
        (0.0001, 4e-6, (5000, 60_000)),
        (0.0, 4e-6, (5000, 60_000)),
        (0.5, 5e-7, (20_000, 10)),
        (0.5, 4e-4, (64, 26)),
    ],
    ids=[
        "a half",
        "a hundredth",
        "a sleep is rounded up",
        "all of it",
        "nearly nothing",
        "nothing",
        "cheap pages",
        "dear pages",
    ],
)
def test_batches_and_sleeps_that_use_a_share(
    share: float, cost: float, batch: tuple[int, int]
) -> None:
    assert speed.of_share(share, cost) == batch


@pytest.mark.parametrize(
    ("pages", "sleep", "share", "kept"),
    [
        (5000, 20, 0.5, True),
        (5000, 20, 0.625, True),
        (5000, 20, 0.63, False),
        (5000, 20, 0.49, False),
        (1250, 5, 0.5, True),
        (1249, 5, 0.5, False),
        (10_000, 40, 0.5, True),
        (10_001, 41, 0.5, False),
    ],
    ids=[
        "all of the share",
        "four fifths of it",
        "less",
        "more than the share",
        "a quarter of a batch",
        "a smaller one",
        "two batches",
        "a larger one",
    ],
)
def test_a_speed_is_kept_while_it_is_near_enough(
    pages: int, sleep: int, share: float, kept: bool
) -> None:
    written = {"pages_to_scan": str(pages), "sleep_millisecs": str(sleep), "run": "1"}
    assert speed.kept(written, share, 4e-6) == (written if kept else {})


@pytest.mark.parametrize("lacking", ["pages_to_scan", "sleep_millisecs", "run"])
def test_settings_that_were_not_all_written_are_not_kept(lacking: str) -> None:
    written = {"pages_to_scan": "5000", "sleep_millisecs": "20", "run": "1"}
    del written[lacking]
    assert speed.kept(written, 0.5, 4e-6) == {}


def test_a_stopped_ksmd_is_not_kept_stopped() -> None:
    written = {"pages_to_scan": "5000", "sleep_millisecs": "20", "run": "0"}
    assert speed.kept(written, 0.5, 4e-6) == {}
