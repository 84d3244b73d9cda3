# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast ksmd goes in `auto`: batches of pages and sleeps that use a share of one CPU."""

from __future__ import annotations

import math

from tuned_virt.plugins.ksm.decision import CONTROLLED, ControllerMemory

BATCH = 0.020
"""CPU seconds of a batch. Who writes `run` waits for its end; the sleep after it is rounded up to
the timer's ticks (4 ms at HZ=250), which a longer batch makes matter less."""

PAGES = (64, 20_000)
"""Fewest and most pages a batch."""

SLEEPS = (1, 60_000)
"""Shortest and longest sleep between batches, in ms."""

NOMINAL_COST = 7e-6
"""The cost of a page where it cannot be measured, as in a container."""

MINUTE = 60.0

AIM = 0.95
"""Part of max_cpu that is aimed at: a page may cost more than it did a second ago."""

KEPT = 0.8
"""A speed is left alone while it uses this part of what it may, or more."""

COST = (2e-7, 5e-5)
"""Bounds of what scanning a page may cost, in CPU seconds; 1.3e-6 to 7.2e-6 were measured."""


def cost(before: float, cpu: float, scanned: int) -> float:
    """CPU seconds a page: dearer at once, which keeps the cap; cheaper by halves."""
    found = min(max(cpu / scanned, COST[0]), COST[1])
    return found if found > before else (before + found) / 2


def allowance(cap: float, memory: ControllerMemory, interval: float) -> float:
    """Share of one CPU that the next interval may use, so that no minute has more than the cap."""
    assert memory.last is not None
    start = memory.last.now - MINUTE + interval
    used = sum(cpu for when, cpu in memory.spent if when > start)
    return max(min(cap, (cap * MINUTE - used) / interval), 0.0)


def of_share(share: float, cost: float) -> tuple[int, int]:
    """Pages a batch and ms of sleep that use a share of one CPU, at CPU seconds a page."""
    pages = min(max(int(BATCH / cost), PAGES[0]), PAGES[1])
    if share <= 0:
        return pages, SLEEPS[1]
    sleep = math.ceil(pages * cost * (1 / share - 1) * 1000)
    return pages, min(max(sleep, SLEEPS[0]), SLEEPS[1])


def kept(written: dict[str, str], share: float, cost: float) -> dict[str, str]:
    """The settings as they are while they use no more than the share, and not much less."""
    if written.get("run") != "1" or not written.keys() >= set(CONTROLLED):
        return {}  # the kernel has refused one of them
    busy = int(written["pages_to_scan"]) * cost
    used = busy / (busy + int(written["sleep_millisecs"]) / 1000)
    fits = KEPT * share <= used <= share and BATCH / 4 <= busy <= BATCH * 2
    return written if fits else {}
