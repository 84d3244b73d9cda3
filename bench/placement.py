# SPDX-License-Identifier: GPL-2.0-or-later
"""The planner's speed, and its placements against the optimum and what others choose.

    make bench-placement

Rivals on the same instances: OR-tools' CP-SAT (the optimum, within 5 s), the program numad's advice
(root), and no pinning. virt-install has no rule of its own any more: what it writes is shown.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from bench.placement_rivals import missing, numad, unpinned, virt_install
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Cell, Guest
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.placement import Placement, PlacementPolicy, Planner, parse, plan
from tuned_virt.placement.sharing import core_shares

RUNS = 7
GIB = 1 << 20


def machine(nodes: int, cpus: int, gib: int, llcs: int = 1, threads: int = 1) -> Host:
    """A host of equal nodes, siblings next to each other, pairs of nodes near each other."""
    details = {}
    caches = []
    found = []
    for node in range(nodes):
        own = range(node * cpus, (node + 1) * cpus)
        for cpu in own:
            core = cpu // threads * threads
            siblings = frozenset(range(core, core + threads))
            details[cpu] = CpuDetail(cpu, node, node, 0, core, siblings)
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
    for name, most in product(("node", "dedicated"), ("auto", "4")):
        policy = parse({"policy": name, "overcommit": most})
        asked = f"policy={name} overcommit={most}"

        fresh = lambda: plan(host, guests, policy, {})  # noqa: B023, E731
        say(f"1000 guests, {asked}", milliseconds(fresh), 100)
        planner = Planner()
        current = {one.uuid: one for one in planner.plan(host, guests, policy, {}).placements}
        add = lambda: planner.plan(host, more, policy, current)  # noqa: B023, E731
        say(f"one more, {asked}", milliseconds(add), 5)
    many = [guest(number, 2, 1) for number in range(10_000)]
    policy = parse({"policy": "dedicated"})
    say("10000 guests", milliseconds(lambda: plan(host, many, policy, {})), 2000)
    one = [guest(0, 32, 32, cells=8)]
    for cpus in (5, 9, 3):
        nodes = machine(16, cpus, 8)
        policy = parse({"policy": "dedicated"})
        cells = lambda: plan(nodes, one, policy, {})  # noqa: B023, E731
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


def ours(host: Host, guests: list[Guest]) -> tuple[int, list[list[int]]]:
    """Nodes spanned, and vCPUs by node; a guest left alone or that floats over all counts as
    spanning them all, as one that nobody pins does."""
    made = {one.guest: one for one in plan(host, guests, parse({}), {}).placements}
    spans, found = 0, []
    for one in guests:
        placed = made[one.name]
        spans += len(placed.nodes) or len(host.nodes)
        sets = map(cpuset.parse, placed.vcpus.values())
        nodes = [{host.cpus[cpu].node for cpu in cpus} for cpus in sets]
        homes = [min(some) for some in nodes] if all(len(some) == 1 for some in nodes) else []
        alone = [one.vcpus // len(host.nodes)] * len(host.nodes)
        found.append([homes.count(node.id) for node in host.nodes] if homes else alone)
    return spans, found


def others() -> dict[str, Callable[[Host, list[Guest]], list[list[int]]]]:
    """Who is asked beside us: numad if that can be, and nobody; says what the programs are."""
    why = missing()
    if why:
        print(f"numad and virt-install are not compared: {why}")
        return {"unpinned": unpinned}
    print(
        f"virt-install --vcpus 4,cpuset=auto writes {virt_install('4,cpuset=auto')}: libvirt then"
        f" asks numad; without cpuset {virt_install('4')}: unpinned"
    )
    return {"numad -w (virt-install's auto)": numad, "unpinned (virt-install's default)": unpinned}


def quality(each: int = 25) -> None:
    """100 instances against the optimum, numad and virt-install."""
    rivals = others()
    for load in (0.5, 0.7, 0.85, 1.0):
        draw = random.Random(int(100 * load))  # noqa: S311 - instances
        instances = [instance(draw, load) for _ in range(each)]
        equal = proven = excess = 0
        chosen: dict[str, list[list[list[int]]]] = {"ours": []}
        for host, guests in instances:
            best, certain = optimum(host, guests)
            spans, placed = ours(host, guests)
            chosen["ours"].append(placed)
            if certain:
                proven += 1
                equal += spans == best
                excess += spans - best
        for name, rival in rivals.items():
            with ThreadPoolExecutor(12) as pool:  # numad sleeps two seconds a guest
                chosen[name] = list(pool.map(lambda one: rival(*one), instances))  # noqa: B023
        print(
            f"load {load:.0%}: equal to the optimum {equal} of {proven} proven, mean excess"
            f" {excess / max(proven, 1):.2f} node-spans; vCPUs across nodes, GiB of split memory,"
            " vCPUs more than CPUs on a node:"
        )
        for name, plans in chosen.items():
            vcpus, gib, over = total(instances, plans)
            print(f"    {name}: {vcpus}, {gib:.0f}, {over}")


def total(
    instances: list[tuple[Host, list[Guest]]], plans: list[list[list[int]]]
) -> tuple[int, float, int]:
    """Of all instances: vCPUs across nodes, GiB of split memory, vCPUs more than a node's CPUs."""
    vcpus, gib, over = 0, 0.0, 0
    for (host, guests), counts in zip(instances, plans):
        some, split = across(guests, counts)
        vcpus, gib = vcpus + some, gib + split
        for node, placed in zip(host.nodes, zip(*counts)):
            over += max(sum(placed) - len(node.cpus), 0)
    return vcpus, gib, over


# --- crowded hosts --------------------------------------------------------------------------------


def crowd(draw: random.Random, percent: int) -> tuple[Host, list[Guest]]:
    """2 or 4 nodes of 8 cores with two threads, guests of 1 to 12 vCPUs up to a load."""
    host = machine(draw.choice([2, 4]), 16, 512, threads=2)
    guests: list[Guest] = []
    while sum(one.vcpus for one in guests) < len(host.cpus) * percent // 100:
        guests.append(guest(len(guests), draw.choice([1, 2, 2, 4, 4, 6, 8, 12]), 1))
    return host, guests


def one_by_one(host: Host, guests: list[Guest], policy: PlacementPolicy) -> Iterable[Placement]:
    """The placements if each guest starts while those before it run."""
    planner = Planner()
    made: Iterable[Placement] = ()
    for number in range(len(guests)):
        current = {one.uuid: one for one in made}
        made = planner.plan(host, guests[: number + 1], policy, current).placements
    return made


def unevenness(host: Host, made: Iterable[Placement]) -> float:
    """The vCPUs of the fullest node over their mean; those on several nodes in equal parts."""
    loads = dict.fromkeys(host.by_id, 0.0)
    for placed in made:
        for text in placed.vcpus.values():
            homes = {host.cpus[cpu].node for cpu in cpuset.parse(text)}
            for home in homes:
                loads[home] += 1 / len(homes)
    return max(loads.values()) * len(loads) / max(sum(loads.values()), 1)


def crowded(each: int = 25) -> None:
    """All at once and one by one, by the default and by what was the default before."""
    for percent, most in product((100, 200, 300, 400), ("auto", "1")):
        draw = random.Random(percent)  # noqa: S311 - instances
        instances = [crowd(draw, percent) for _ in range(each)]
        policy = parse({"overcommit": most})
        placed = total = 0
        uneven, kept = 1.0, 1.0
        for host, guests in instances:
            for made in (
                plan(host, guests, policy, {}).placements,
                one_by_one(host, guests, policy),
            ):
                placed += sum(bool(one.vcpus) for one in made)
                total += len(guests)
                uneven = max(uneven, unevenness(host, made))
                shares = core_shares(host, guests, made).values()
                kept = min(kept, *(one.kept for one in shares))
        print(
            f"vCPUs for {percent} % of the CPUs, overcommit={most}: {placed} of {total} guests"
            f" placed, fullest node {uneven:.2f} times the mean, least share of cores against"
            f" unpinned {kept:.0%}"
        )


def main() -> int:
    """All of it."""
    speed()
    crowded()
    quality()
    return 0


if __name__ == "__main__":
    sys.exit(main())
