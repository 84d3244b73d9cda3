# SPDX-License-Identifier: GPL-2.0-or-later
"""The planner's speed, and its placements against the optimum and what others choose.

    make bench-placement

Rivals on the same instances: OR-tools' CP-SAT (the optimum, within 5 s), numad's rule and
virt-install's (placement=static: none). numad's published rule is modelled: whole nodes by free
memory × free CPUs (numad.c, pick_numa_nodes). The program needs two seconds a guest, and is no
better: shown four idle nodes of 8 CPUs in place of /sys/devices/system/node and /proc/stat,
`numad -w 12:4096` of 0.5 (2015) gave all four nodes. virt-install leaves guests to the scheduler:
each vCPU is counted on the node that has most CPUs idle.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable

from tuned_virt import cpuset
from tuned_virt.guest import Cell, Guest
from tuned_virt.placement import Plan, parse, plan, planner
from tuned_virt.topology import Cache, CpuDetail, Host, NumaNode

RUNS = 7
GIB = 1 << 20


def machine(nodes: int, cpus: int, gib: int, llcs: int = 1) -> Host:
    """A host of equal nodes without SMT, pairs of nodes near each other."""
    details = {}
    caches = []
    found = []
    for node in range(nodes):
        own = range(node * cpus, (node + 1) * cpus)
        details.update({cpu: CpuDetail(cpu, node, node, 0, cpu, frozenset({cpu})) for cpu in own})
        for start in range(own.start, own.stop, cpus // llcs):
            caches.append(Cache(frozenset(range(start, start + cpus // llcs)), 32 << 10))
        distances = {other: _distance(node, other) for other in range(nodes)}
        found.append(NumaNode(node, frozenset(own), gib * GIB, distances, {}))
    return Host(tuple(found), details, tuple(caches))


def _distance(one: int, other: int) -> int:
    if one == other:
        return 10
    return 12 if one // 2 == other // 2 else 20


def guest(number: int, vcpus: int, gib: int, cells: int = 0) -> Guest:
    """A guest, with so many equal vNUMA cells."""
    each = vcpus // cells if cells else 0
    own = tuple(
        Cell(c, frozenset(range(c * each, (c + 1) * each)), gib * GIB // cells)
        for c in range(cells)
    )
    online = tuple(range(vcpus))
    name = f"g{number:04}"
    return Guest(name, name, vcpus=vcpus, online=online, memory=gib * GIB, cells=own)


def milliseconds(work: Callable[[], object]) -> list[float]:
    """Times of several runs, without what a run before left in memory."""
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begin))
    return times


def say(what: str, times: list[float], most: float) -> None:
    """One line: median, worst, and the aim."""
    print(f"{what}: median {statistics.median(times):.1f} ms, worst {max(times):.1f}, aim {most:g}")


def speed() -> None:
    """1,000 guests on 1,024 CPUs; one more; 8 cells on 16 nodes."""
    host = machine(16, 64, 256, llcs=8)
    draw = random.Random(1)  # noqa: S311 - an instance
    sizes = [draw.choice([1, 1, 2, 2, 4, 4, 8]) for _ in range(1000)]
    guests = [guest(number, size, size) for number, size in enumerate(sizes)]
    more = [*guests, guest(1000, 4, 4)]
    for name in ("node", "dedicated"):
        policy = parse({"policy": name, "overcommit": "4"})

        def forgetful() -> Plan:
            planner._sessions = ()
            return plan(host, guests, policy, {})  # noqa: B023 - called at once

        say(f"1000 guests, policy={name}", milliseconds(forgetful), 100)
        current = {one.uuid: one for one in forgetful().placements}
        add = lambda: plan(host, more, policy, current)  # noqa: B023, E731
        say(f"one more, policy={name}", milliseconds(add), 5)
    crowd = [guest(number, 2, 1) for number in range(10_000)]
    policy = parse({"policy": "dedicated"})
    planner._sessions = ()
    say("10000 guests", milliseconds(lambda: plan(host, crowd, policy, {})), 2000)
    one = [guest(0, 32, 32, cells=8)]
    for cpus in (5, 9, 3):
        nodes = machine(16, cpus, 8)
        policy = parse({"policy": "dedicated"})

        def cells() -> Plan:
            planner._sessions = ()
            return plan(nodes, one, policy, {})  # noqa: B023

        say(f"8 cells on 16 nodes of {cpus} CPUs", milliseconds(cells), 50)


# --- against others -------------------------------------------------------------------------------


def instance(draw: random.Random, load: float) -> tuple[Host, list[Guest]]:
    """2 to 4 nodes of 8 CPUs and 64 GiB, guests of 1 to 6 vCPUs and 1 to 8 GiB up to a load."""
    host = machine(draw.randint(2, 4), 8, 64)
    left = int(load * len(host.cpus))
    guests: list[Guest] = []
    while left > 0:
        vcpus = min(left, draw.randint(1, 6))
        guests.append(guest(len(guests), vcpus, gib=1 + (7 * vcpus + len(guests)) % 8))
        left -= vcpus
    return host, guests


def optimum(host: Host, guests: list[Guest]) -> tuple[int, bool]:
    """Fewest nodes spanned by all guests together, and whether that is proven."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    nodes = range(len(host.nodes))
    spans = []
    amounts = {}
    for number, one in enumerate(guests):
        for node in nodes:
            amount = model.new_int_var(0, one.vcpus, "")
            used = model.new_bool_var("")
            model.add(amount <= one.vcpus * used)
            amounts[number, node] = amount
            spans.append(used)
        model.add(sum(amounts[number, node] for node in nodes) == one.vcpus)
    for node in nodes:
        total = sum(amounts[number, node] for number in range(len(guests)))
        model.add(total <= len(host.nodes[node].cpus))
    model.minimize(sum(spans))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = 5
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    status = solver.solve(model)
    return int(solver.objective_value), solver.status_name(status) == "OPTIMAL"


Across = tuple[int, float]
"""vCPUs outside the node that has most of their guest's, and GiB of guests outside such nodes."""


def across(guests: list[Guest], counts: list[list[int]]) -> Across:
    """Of guests with so many vCPUs by node; memory is touched by the vCPUs, so lies as they do."""
    vcpus = [sum(some) - max(some) for some in counts]
    parts = [far / max(sum(some), 1) for far, some in zip(vcpus, counts)]
    return sum(vcpus), sum(one.memory * part for one, part in zip(guests, parts)) / GIB


def numad(host: Host, guests: list[Guest]) -> list[list[int]]:
    """By numad's rule: the node with most free memory × free CPUs, then more."""
    cpus = [len(node.cpus) for node in host.nodes]
    memory = [node.memory for node in host.nodes]
    found = []
    for one in guests:
        counts = [0] * len(cpus)
        for at in sorted(range(len(cpus)), key=lambda at: -cpus[at] * memory[at]):
            counts[at] = min(cpus[at], one.vcpus - sum(counts))
            cpus[at] -= counts[at]
            memory[at] -= counts[at] * one.memory // one.vcpus
        found.append(counts)
    return found


def unpinned(host: Host, guests: list[Guest]) -> list[list[int]]:
    """As virt-install leaves them: the scheduler spreads vCPUs over idle CPUs."""
    cpus = [len(node.cpus) for node in host.nodes]
    found = []
    for one in guests:
        counts = [0] * len(cpus)
        for _ in range(one.vcpus):
            at = max(range(len(cpus)), key=lambda node: cpus[node])
            cpus[at] -= 1
            counts[at] += 1
        found.append(counts)
    return found


def ours(host: Host, guests: list[Guest]) -> tuple[int, list[list[int]]]:
    """Nodes spanned, and vCPUs by node; a guest left alone counts as spanning them all, as one that
    nobody pins does."""
    planner._sessions = ()
    made = {one.guest: one for one in plan(host, guests, parse({}), {}).placements}
    spans, found = 0, []
    for one in guests:
        placed = made[one.name]
        spans += len(placed.nodes) or len(host.nodes)
        homes = [host.cpus[min(cpuset.parse(text))].node for text in placed.vcpus.values()]
        alone = [one.vcpus // len(host.nodes)] * len(host.nodes)
        found.append([homes.count(node.id) for node in host.nodes] if homes else alone)
    return spans, found


def quality(each: int = 25) -> None:
    """100 instances against the optimum, numad and virt-install."""
    rivals = ("ours", "numad's rule", "unpinned")
    for load in (0.5, 0.7, 0.85, 1.0):
        draw = random.Random(int(100 * load))  # noqa: S311 - instances
        equal = proven = excess = 0
        total = {name: (0, 0.0) for name in rivals}
        for _ in range(each):
            host, guests = instance(draw, load)
            best, certain = optimum(host, guests)
            spans, placed = ours(host, guests)
            if certain:
                proven += 1
                equal += spans == best
                excess += spans - best
            chosen = (placed, numad(host, guests), unpinned(host, guests))
            for name, counts in zip(rivals, chosen):
                vcpus, gib = across(guests, counts)
                total[name] = (total[name][0] + vcpus, total[name][1] + gib)
        print(
            f"load {load:.0%}: equal to the optimum {equal} of {proven} proven, mean excess"
            f" {excess / max(proven, 1):.2f} node-spans; vCPUs across nodes, GiB of split memory: "
            + "; ".join(f"{name} {vcpus}, {gib:.0f}" for name, (vcpus, gib) in total.items())
        )


def main() -> int:
    """All of it."""
    speed()
    quality()
    return 0


if __name__ == "__main__":
    sys.exit(main())
