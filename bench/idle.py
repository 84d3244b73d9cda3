# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host costs while nothing happens: TuneD's memory, CPU time and wake-ups, stock and ours.

    make bench-idle                  60 s each
    make bench-idle IDLE="--seconds 20"

Each profile in a sandbox of the newest TuneD: virtual-guest, virtual-guest-plus, virtual-host and
virtual-host-plus; the last also beside a libvirtd with eight guests. Memory is the daemon's
resident memory, and what of it is its own (Pss). A wake-up is a voluntary context switch of one of
its threads: it had slept, and was run.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from dataclasses import dataclass

from bench.pinning import all_held
from tests.libvirtd import Libvirtd
from tests.sandbox import Sandbox, wait_for

VERSION = "latest"
SETTLE = 10.0
"""Seconds after a switch, for what goes on after it."""

LOOK = """p=$(pgrep -o -x tuned)
grep VmRSS /proc/$p/status; grep '^Pss:' /proc/$p/smaps_rollup
cat /proc/$p/task/*/schedstat | awk '{s += $1} END {printf "%.0f\\n", s}'
cat /proc/$p/task/*/status | awk '/^voluntary/ {s += $2} END {print s + 0}'
ls /proc/$p/task | wc -l"""


@dataclass(frozen=True)
class Look:
    """The daemon at a moment: MiB, seconds on a CPU, wake-ups, threads."""

    resident: float
    own: float
    seconds: float
    wakes: int
    threads: int


def look(t: Sandbox) -> Look:
    """As /proc has it."""
    resident, own, ns, wakes, threads = t.run(["sh", "-c", LOOK]).stdout.splitlines()
    mib = [int(line.split()[1]) / 1024 for line in (resident, own)]
    return Look(mib[0], mib[1], int(ns) / 1e9, int(wakes), int(threads))


def measured(profile: str, seconds: float, guests: int = 0) -> Look:
    """The daemon after so many idle seconds; time and wake-ups are of one second."""
    with contextlib.ExitStack() as stack:
        t = stack.enter_context(Sandbox(VERSION))
        if guests:
            libvirtd = stack.enter_context(Libvirtd(t))
        t.switch(profile)
        for number in range(guests):
            libvirtd.start_guest(f"web{number}")
        if guests:
            wait_for("the guests placed", lambda: all_held(t))
        time.sleep(SETTLE)
        before = look(t)
        time.sleep(seconds)
        after = look(t)
    used, woken = after.seconds - before.seconds, after.wakes - before.wakes
    return Look(after.resident, after.own, used / seconds, round(woken / seconds), after.threads)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0, help="idle time of each")
    seconds = parser.parse_args().seconds
    cases = {
        "virtual-guest": ("virtual-guest", 0),
        "virtual-guest-plus": ("virtual-guest-plus", 0),
        "virtual-host": ("virtual-host", 0),
        "virtual-host-plus": ("virtual-host-plus", 0),
        "the same, 8 guests": ("virtual-host-plus", 8),
    }
    print(f"{'':22}{'resident MiB':>14}{'own MiB':>10}{'threads':>9}{'CPU':>10}{'wake-ups/s':>12}")
    for title, (profile, guests) in cases.items():
        found = measured(profile, seconds, guests)
        print(
            f"{title:22}{found.resident:14.1f}{found.own:10.1f}{found.threads:9}"
            f"{found.seconds:10.3%}{found.wakes:12}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
