# SPDX-License-Identifier: GPL-2.0-or-later
"""How the planner's time grows with guests and with NUMA nodes: CPU time, medians.

    python -m bench.growth

Guests have 1 to 4 vCPUs, as many as the host has CPUs; each is placed where there is room. "one
more" is a guest that starts beside all of them.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence

from bench.placement import guest, machine
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import Planner, parse

RUNS = 5
GUESTS = (1, 10, 100, 1000)
NODES = (1, 2, 4, 8, 16, 32, 64)
OF_NODES = 256
"""Guests where the number of nodes changes."""

CPUS_PER_GUEST = 2.5
"""vCPUs of a guest, on average."""


def case(guests: int, nodes: int) -> tuple[Host, list[Guest]]:
    """A host as large as its guests."""
    draw = random.Random(guests * 100 + nodes)  # noqa: S311 - instances
    cpus = max(int(guests * CPUS_PER_GUEST / nodes), 4)
    host = machine(nodes, cpus, max(cpus * 4, 8))
    return host, [guest(number, draw.choice([1, 2, 3, 4]), 1) for number in range(guests + 1)]


def milliseconds(host: Host, guests: Sequence[Guest]) -> tuple[float, float]:
    """CPU time to plan all but the last guest, and then the last one as well."""
    first, more = [], []
    for _ in range(RUNS):
        planner = Planner()
        began = time.process_time()
        made = planner.plan(host, guests[:-1], parse({}), {}).placements
        first.append(time.process_time() - began)
        current = {one.uuid: one for one in made}
        began = time.process_time()
        planner.plan(host, guests, parse({}), current)
        more.append(time.process_time() - began)
    return statistics.median(first) * 1000, statistics.median(more) * 1000


def main() -> int:
    """Both tables."""
    print(f"{'guests':>8}{'nodes':>8}{'all':>12}{'one more':>12}")
    cases = [*((count, 4) for count in GUESTS), *((OF_NODES, nodes) for nodes in NODES)]
    for guests, nodes in cases:
        every, one = milliseconds(*case(guests, nodes))
        print(f"{guests:8}{nodes:8}{every:9.1f} ms{one:9.1f} ms", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
