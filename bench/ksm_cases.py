# SPDX-License-Identifier: GPL-2.0-or-later
"""What the KSM bench measures of one rival: one function per case, each from `reset` on."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from bench import ksm_guest
from bench.ksm_machine import (
    GIB_OF_PAGES,
    Guest,
    Host,
    Ksmd,
    idle,
    merged,
    reset,
    tiny_guests,
)
from bench.ksm_rivals import PREPARE, RIVALS, Controller, ksmtuned_changed
from tuned_virt.core.guest_source import NO_GUESTS
from tuned_virt.core.journal import Journal
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.ksm.auto import AutoPolicy
from tuned_virt.plugins.ksm.controller import KsmController
from tuned_virt.plugins.ksm.controller_state import ControllerStateFile
from tuned_virt.plugins.ksm.sampler import Sampler

Figures = dict[str, float]
"""One run's results by name; math.inf for a time that was not reached."""

GUESTS = 4
SAMPLE = 0.1
"""Seconds between two looks at what is merged."""

THERE = 0.9
"""Share of the ideal that counts as converged."""

LIMIT = 700.0
SETTLE = 30.0
STEADY = 60.0

ARRIVALS = (0.0, 60.0, 120.0, 180.0)
ARRIVALS_END = 300.0
UNSHAREABLE_END = 150.0
LAST = 60.0

TINY = 500
SERVICE_FILES = 1024
"""Files that systemd lets a service open (DefaultLimitNOFILE, the soft one)."""
ROUNDS = 20


class NotYet(Exception):
    """A rival has no such case."""


@dataclass
class Watch:
    """The clocks of one run, from the arrival of the first guests on."""

    controller: Controller
    ksmd: Ksmd = field(default_factory=Ksmd)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.aged = self._ksmd = self.ksmd.cpu()
        self._idle = idle()
        self._mine = time.process_time()
        self._integral = 0.0
        self._last = (self.began, merged())

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def cpu(self) -> float:
        """Seconds of CPU of ksmd since the beginning."""
        return self.ksmd.cpu() - self._ksmd

    def sample(self) -> int:
        """Pages merged now, after a short sleep."""
        time.sleep(SAMPLE)
        when, pages = time.monotonic(), merged()
        before, earlier = self._last
        self._integral += (when - before) * (pages + earlier) / 2
        self._last = (when, pages)
        return pages

    def until(self, end: float) -> None:
        """Go on sampling up to that second."""
        while self.now() < end:
            self.sample()

    def percent(self, end: float, span: float) -> float:
        """Go on up to that second; ksmd's share of a CPU in the span before it."""
        self.until(end - span)
        since, cpu = self.now(), self.cpu()
        self.until(end)
        return 100 * (self.cpu() - cpu) / (self.now() - since)

    def totals(self) -> Figures:
        """What every case tells."""
        ksmd, controller, seconds = self.cpu(), self.controller.cpu(), self.now()
        busy = (os.cpu_count() or 1) * seconds - (idle() - self._idle)
        others = busy - ksmd - controller - (time.process_time() - self._mine)
        return {
            "ksmd": ksmd,
            "controller": controller,
            "gib_seconds": self._integral / GIB_OF_PAGES,
            "gib": merged() / GIB_OF_PAGES,
            "others": 100 * others / seconds,
            "seconds_in_all": seconds,
            "ksmd_before": self.aged,
        }


@contextlib.contextmanager
def started(
    rival: str, ready: int, alike: bool = True
) -> Iterator[tuple[Host, list[Guest], Watch]]:
    """A rival at work on a host with guests about to arrive."""
    reset()
    PREPARE.get(rival, lambda: None)()
    try:
        with Host(alike) as host:
            guests = host.start_ready(ready)
            with RIVALS[rival]() as controller:
                yield host, guests, Watch(controller)
    finally:
        reset()


def converge(rival: str) -> Figures:
    """Four guests at once: how soon most is merged, and what ksmd costs when it is."""
    wanted = THERE * ksm_guest.to_gain(GUESTS)
    with started(rival, GUESTS) as (_, guests, watch):
        for guest in guests:
            guest.arrive()
        while watch.sample() < wanted:
            if watch.now() > LIMIT:
                return {"seconds": float("inf"), "to_there": float("inf"), **watch.totals()}
        seconds, to_there = watch.now(), watch.cpu()
        steady = watch.percent(seconds + SETTLE + STEADY, STEADY)
        return {"seconds": seconds, "to_there": to_there, "percent": steady, **watch.totals()}


def arrivals(rival: str) -> Figures:
    """Four guests, one after another, each filling its memory from its arrival on."""
    with started(rival, 0) as (host, _, watch):
        for at in ARRIVALS:
            watch.until(at)
            host.start("at-once")
        percent = watch.percent(ARRIVALS_END, LAST)
        return {"percent": percent, **watch.totals()}


def unshareable(rival: str) -> Figures:
    """Four guests at once that have nothing in common."""
    with started(rival, GUESTS, alike=False) as (_, guests, watch):
        for guest in guests:
            guest.arrive()
        percent = watch.percent(UNSHAREABLE_END, LAST)
        return {"percent": percent, **watch.totals()}


def round_cost(rival: str) -> Figures:
    """CPU of one round of the controller among many guests."""
    if rival not in ROUND:
        raise NotYet
    reset()
    try:
        with tiny_guests(TINY):
            return {"round": ROUND[rival]()}
    finally:
        reset()


def ksmtuned_round() -> float:
    """CPU seconds of one `adjust` of ksmtuned, its children included."""
    with ksmtuned_changed() as script:
        nothing = _adjusting(str(script), 0)
        return (_adjusting(str(script), ROUNDS) - nothing) / ROUNDS


def _adjusting(script: str, rounds: int) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = '. "$0" 2>/dev/null; for ((i = 0; i < $1; i++)); do adjust; done'
    subprocess.run(  # its main loop is not started where it cannot write its PIDFILE
        ["bash", "-c", command, script, str(rounds)], env={**os.environ, "PIDFILE": ""}, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def our_round() -> float:
    """CPU seconds of one look of our loop that counts the guests; it has looked once before.

    It keeps as many files open as it would as a service of systemd.
    """
    with tempfile.TemporaryDirectory(prefix="tuned-virt-bench-") as folder:
        fs, record = KernelFS(), ControllerStateFile(Path(folder) / "ksm.json")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (SERVICE_FILES, limits[1]))
        sampler = Sampler(fs, NO_GUESTS)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        journal = Journal(Path(folder) / "journal")
        loop = KsmController(AutoPolicy(), fs, journal, record, sampler)
        loop.look()
        before = time.process_time()
        for _ in range(ROUNDS):
            loop.look(("count",))
        return (time.process_time() - before) / ROUNDS


ROUND: Mapping[str, Callable[[], float]] = MappingProxyType(
    {"auto": our_round, "ksmtuned": ksmtuned_round}
)

CASES: Mapping[str, Callable[[str], Figures]] = MappingProxyType(
    {
        "converge": converge,
        "arrivals": arrivals,
        "unshareable": unshareable,
        "round": round_cost,
    }
)
