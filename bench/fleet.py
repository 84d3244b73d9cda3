# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run of the Ansible role costs over many hosts, measured over a few and extrapolated.

    make bench-fleet                 2, 10 and 50 hosts
    make bench-fleet FLEET="--hosts 2,10 --forks 20"

Each host is booted by systemd in namespaces of this machine, with its own TuneD and sshd; the role
runs over ssh. A first run changes each host, a second finds nothing to do. Of each run three things
are measured: seconds, CPU seconds of ansible-playbook with its forks and ssh clients (what the
control node spends), and CPU seconds of the hosts, which are elsewhere in a real fleet. The last
lines are a straight line through the measured points, and are marked so. What else runs on this
machine adds to the seconds and hardly to CPU seconds; its load is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.hosts import Fleet
from tests.fleet.plays import PROFILES, ROLE, guest
from tuned_virt.kernel import procfs

EXTRAPOLATED = 1000


@dataclass(frozen=True)
class Cost:
    """Of one run over so many hosts, in seconds."""

    hosts: int
    wall: float
    control: float
    inside: float


@dataclass(frozen=True)
class Line:
    """A straight line through points, by least squares."""

    start: float
    slope: float

    def at(self, place: float) -> float:
        """Its height somewhere."""
        return self.start + self.slope * place


def fitted(points: Sequence[tuple[float, float]]) -> Line:
    """The line through two points or more at different places."""
    middle = sum(x for x, _ in points) / len(points)
    height = sum(y for _, y in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    slope = sum((x - middle) * (y - height) for x, y in points) / spread
    return Line(height - slope * middle, slope)


def inside_seconds(fleet: Fleet) -> float:
    """CPU time of the processes on the hosts, and of those that they have waited for (proc(5))."""
    spaces = {os.stat(f"/proc/{host.pid}/ns/pid").st_ino for host in fleet.hosts.values()}
    ticks = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.stat(entry / "ns/pid").st_ino in spaces:
                ticks += sum(map(int, procfs.stat_fields((entry / "stat").read_text())[11:15]))
    return ticks / procfs.ticks()


def control_seconds() -> float:
    """CPU time of children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(fleet: Fleet, forks: int, changed: bool) -> Cost:
    """One run of the role; fails where it does, or does not change what it should."""
    before = time.monotonic(), control_seconds(), inside_seconds(fleet)
    done = fleet.play(ROLE, "--forks", str(forks))
    after = time.monotonic(), control_seconds(), inside_seconds(fleet)
    assert done.ok, done.output[-3000:]
    assert {one.changed > 0 for one in done.recap.values()} == {changed}, done.output[-3000:]
    return Cost(len(fleet.hosts), *(b - a for a, b in zip(before, after)))


def measured(hosts: int, forks: int) -> tuple[Cost, Cost]:
    """A first run over new hosts, and a second that finds nothing to do."""
    names = {f"host{number}": guest(arp_filter=True) for number in range(hosts)}
    with Fleet(names, PROFILES) as fleet:
        for host in fleet.hosts.values():
            host.switch("before")
        return timed(fleet, forks, changed=True), timed(fleet, forks, changed=False)


def show(title: str, costs: Sequence[Cost]) -> None:
    """A table, and the line through it."""
    print(f"{title:20}{'hosts':>8}{'seconds':>10}{'control CPU s':>16}{'hosts CPU s':>13}")
    for cost in costs:
        print(
            f"{'measured':20}{cost.hosts:8}{cost.wall:10.1f}{cost.control:16.1f}{cost.inside:13.1f}"
        )
    if len(costs) > 1:
        lines = [
            fitted([(cost.hosts, getattr(cost, name)) for cost in costs])
            for name in ("wall", "control", "inside")
        ]
        each = "".join(f"{line.slope:{width}.2f}" for line, width in zip(lines, (10, 16, 13)))
        print(f"{'each host more':20}{'':8}{each}")
        far = "".join(f"{line.at(EXTRAPOLATED):{w}.0f}" for line, w in zip(lines, (10, 16, 13)))
        print(f"{'extrapolated':20}{EXTRAPOLATED:8}{far}")
    print(flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", default="2,10,50", help="how many, separated by commas")
    parser.add_argument("--forks", type=int, default=10, help="hosts at a time")
    options = parser.parse_args()
    counts = [int(text) for text in options.hosts.split(",")]
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} CPUs with a load of {load:.1f}, {options.forks} hosts at a time\n")
    costs = [measured(count, options.forks) for count in counts]
    show("first run", [first for first, _ in costs])
    show("nothing to do", [second for _, second in costs])
    return 0


if __name__ == "__main__":
    sys.exit(main())
