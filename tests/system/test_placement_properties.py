# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every plan, on all captured machines, from empty to overfull."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests import machines
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Cell, CpuTopology, Guest, UserPins
from tuned_virt.model.topology import Host, NumaNode
from tuned_virt.placement import (
    Placement,
    PlacementKind,
    PlacementPlan,
    PlacementPolicy,
    Planner,
    parse,
    plan,
)


def some_guest(draw: random.Random, host: Host, number: int) -> Guest:
    cpus = sorted(host.cpus)
    memory = sum(node.memory for node in host.nodes) or len(cpus) << 20
    largest = max(len(node.cpus & host.cpus.keys()) for node in host.nodes)
    vcpus = draw.choice([1, 1, 2, 2, 3, 4, 4, 6, 8, largest, largest + 1, max(1, largest // 2)])
    threads = 2 if vcpus % 2 == 0 and draw.random() < 0.5 else 1
    kib = max(1024, int(memory * vcpus / len(cpus) * draw.choice([0.1, 0.5, 0.9, 1.3])))
    cells: tuple[Cell, ...] = ()
    if vcpus % 2 == 0 and draw.random() < 0.2:
        half = vcpus // 2
        cells = (
            Cell(0, frozenset(range(half)), kib // 2),
            Cell(1, frozenset(range(half, vcpus)), kib // 2),
        )
    owned = UserPins()
    if draw.random() < 0.1:
        owned = UserPins(vcpus={vcpu: frozenset({draw.choice(cpus)}) for vcpu in range(vcpus)})
    banks = [node.id for node in host.nodes if node.memory]
    devices = sorted(host.devices)
    return Guest(
        name=f"guest{number:03}",
        uuid=f"uuid{number:03}",
        vcpus=vcpus,
        online=tuple(range(vcpus)),
        topology=CpuTopology(cores=vcpus // threads, threads=threads),
        cells=cells,
        memory=kib,
        max_memory=kib * draw.choice([1, 2]),
        owned=owned,
        devices=(draw.choice(devices),) if devices and draw.random() < 0.2 else (),
        iothreads={1: ()} if draw.random() < 0.3 else {},
        resident={draw.choice(banks): kib // 2} if banks and draw.random() < 0.3 else {},
    )


def some_guests(draw: random.Random, host: Host) -> list[Guest]:
    load = draw.choice([0, 0.3, 0.7, 1, 1.6]) * len(host.cpus)
    guests: list[Guest] = []
    while sum(guest.vcpus for guest in guests) < load:
        guests.append(some_guest(draw, host, len(guests)))
    return guests


def some_policy(draw: random.Random, host: Host) -> PlacementPolicy:
    options = {
        "policy": draw.choice(["node", "dedicated", "dedicated"]),
        "smt": draw.choice(["prefer", "require", "isolate"]),
        "overcommit": draw.choice(["1", "1.5", "2"]),
        "memory": draw.choice(["move", "restrictive", "strict", "none"]),
    }
    if draw.random() < 0.3:
        named = draw.sample(sorted(host.cpus), max(1, len(host.cpus) // 8))
        options["housekeeping"] = cpuset.text(named)
    return parse(options)


def dedicated(made: PlacementPlan) -> dict[int, str]:
    """CPU → guest, each once."""
    taken: dict[int, str] = {}
    for one in made.placements:
        if one.kind is PlacementKind.DEDICATED:
            for text in one.vcpus.values():
                assert int(text) not in taken
                taken[int(text)] = one.guest
    return taken


def check_cpus(
    host: Host, guests: list[Guest], policy: PlacementPolicy, made: PlacementPlan
) -> None:
    taken = dedicated(made)
    assert taken.keys() <= host.cpus.keys()
    pinned = {min(cpus) for guest in guests for cpus in guest.owned.vcpus.values()}
    assert len(host.cpus) == 1 or not taken.keys() & pinned
    for one in made.placements:
        if one.kind is PlacementKind.SHARED:
            for text in one.vcpus.values():
                assert cpuset.parse(text) <= host.cpus.keys() - taken.keys()


def usual(host: Host, node: NumaNode) -> set[int]:
    """A node's CPUs that are neither isolated nor without tick; all, where that leaves none."""
    special = host.isolated | host.nohz_full
    special = frozenset() if host.cpus.keys() <= special else special
    return {cpu for cpu in node.cpus & host.cpus.keys() if cpu not in special}


def check_housekeeping(host: Host, policy: PlacementPolicy, made: PlacementPlan) -> None:
    """What is named, or without that the first core of each node, is nobody's own."""
    taken = dedicated(made)
    assert not taken.keys() & (policy.housekeeping or frozenset())
    if policy.housekeeping is None:
        for node in host.nodes:
            own = usual(host, node)
            if own:
                assert not taken.keys() & host.cpus[min(own)].siblings & own


def check_whole_cores(host: Host, policy: PlacementPolicy, made: PlacementPlan) -> None:
    """require and isolate: nobody else has a thread of a guest's cores."""
    taken = dedicated(made)
    for one in made.placements:
        if one.kind is not PlacementKind.DEDICATED or policy.smt.value == "prefer":
            continue
        cpus = [int(text) for text in one.vcpus.values()]
        cores = [host.cpus[cpu].siblings for cpu in cpus]
        assert {taken.get(cpu, one.guest) for core in cores for cpu in core} == {one.guest}
        if policy.smt.value == "isolate":
            assert len(set(cores)) == len(cores)
        else:
            assert all(len(core) > 1 for core in cores)


def torn(host: Host, guest: Guest, one: Placement) -> list[tuple[int, int]]:
    """Pairs of a guest's sibling vCPUs (0 and 1, 2 and 3, …) that are not on host siblings."""
    cpus = {vcpu: int(text) for vcpu, text in one.vcpus.items()}
    pairs = [(cpus[v], cpus[v + 1]) for v in range(0, len(cpus) - 1, 2)]
    return [(a, b) for a, b in pairs if b not in host.cpus[a].siblings]


def check_siblings(
    host: Host, guests: list[Guest], policy: PlacementPolicy, made: PlacementPlan
) -> int:
    """Exact pairs, on cores of two threads; how many were looked at.

    require gives whole cores, so that no pair on one node is torn. With prefer a pair is torn only
    where its cache, in the end, has no whole core free that could have been dedicated, and in one
    cache each core that is all a guest's has one of its pairs.
    """
    known = {guest.uuid: guest for guest in guests}
    taken = dedicated(made)
    looked = 0
    for one in made.placements:
        guest = known[one.uuid]
        smt = policy.smt.value
        if one.kind is not PlacementKind.DEDICATED or guest.threads != 2 or smt == "isolate":
            continue
        looked += len(one.vcpus) // 2
        broken = torn(host, guest, one)
        if smt == "require":
            assert all(host.cpus[a].node != host.cpus[b].node for a, b in broken)
            continue
        cpus = {int(text) for text in one.vcpus.values()}
        if any(cpus <= cache.cpus for cache in host.caches) and len(one.nodes) == 1:
            whole = {core for cpu in cpus for core in (host.cpus[cpu].siblings,) if core <= cpus}
            assert len(whole) == len(cpus) // 2 - len(broken), f"{guest.name}: {one.vcpus}"
        for cpu in (cpu for pair in broken for cpu in pair):
            for core in cores_beside(host, cpu):
                free = core - taken.keys() - reserved(host, guests, policy)
                assert len(free) < 2, f"CPU {cpu} is half of a pair, while {sorted(core)} is free"
    return looked


def cores_beside(host: Host, cpu: int) -> list[frozenset[int]]:
    """Cores in the last-level cache of a CPU; none where it has none that cores share."""
    caches = [cache.cpus & host.cpus.keys() for cache in host.caches if cpu in cache.cpus]
    same = {host.cpus[other].siblings for cache in caches for other in cache}
    node = host.cpus[cpu].node
    return [core for core in same if len(core) == 2 and host.cpus[min(core)].node == node]


def reserved(host: Host, guests: list[Guest], policy: PlacementPolicy) -> set[int]:
    """CPUs that may not be dedicated at all: housekeeping, owners' pins, and on nodes with isolated
    CPUs all the others."""
    found = set(policy.housekeeping or ())
    found |= {cpu for guest in guests for cpus in guest.owned.vcpus.values() for cpu in cpus}
    for node in host.nodes:
        own = usual(host, node)
        if own and policy.housekeeping is None:
            found |= host.cpus[min(own)].siblings & own
        if own != node.cpus & host.cpus.keys():
            found |= own
    return found


# --- one node when it fits ------------------------------------------------------------------------


def check_no_needless_split(
    host: Host, guests: list[Guest], policy: PlacementPolicy, made: PlacementPlan
) -> int:
    """No node has room, in the end, for a guest that is on several; how many were looked at.

    Others only ever take more room, so that what would fit in the end would have fitted. For guests
    without owners' pins, cells, devices and memory in use, on nodes with memory, and smt=prefer.
    """
    known = {guest.uuid: guest for guest in guests}
    placed = [
        one
        for one in made.placements
        if one.kind in {PlacementKind.DEDICATED, PlacementKind.SHARED}
    ]
    taken = dedicated(made)
    off_limits = reserved(host, guests, policy)
    of_cpu = {cpu: detail.node for cpu, detail in host.cpus.items()}
    load = dict.fromkeys(host.by_id, 0.0)
    memory = {node.id: float(node.memory) for node in host.nodes}
    for one in placed:
        for text in one.vcpus.values():
            home = of_cpu[min(cpuset.parse(text))]
            memory[home] -= known[one.uuid].memory / len(one.vcpus)
            load[home] += 0 if one.kind is PlacementKind.DEDICATED else 1 / policy.overcommit
    looked = 0
    for one in placed:
        guest = known[one.uuid]
        homes = [of_cpu[min(cpuset.parse(text))] for text in one.vcpus.values()]
        if len(set(homes)) == 1:
            continue
        looked += 1
        floats = one.kind is PlacementKind.SHARED
        for node in host.nodes:
            own = homes.count(node.id)
            cpus = {cpu for cpu, home in of_cpu.items() if home == node.id}
            shared = len(cpus - taken.keys()) - load[node.id]
            room = shared * policy.overcommit + own
            if not floats:
                room = min(shared, len(cpus - taken.keys() - off_limits)) + own
            spare = memory[node.id] + guest.memory * own / len(homes)
            fits = room >= len(homes) - 1e-6 and spare >= guest.memory - 1e-6
            assert not fits, f"{guest.name} fits on node {node.id}: {one.why}"
    return looked


def crowd(draw: random.Random, host: Host) -> list[Guest]:
    """Plain guests, many of them as large as half a node and more, so that nodes end in pieces."""
    largest = max(len(node.cpus & host.cpus.keys()) for node in host.nodes)
    left = int(len(host.cpus) * draw.choice([0.8, 1, 1.2]))
    guests: list[Guest] = []
    while left > 0:
        vcpus = draw.randint(1, max(1, draw.choice([2, largest // 2, largest, largest * 3 // 2])))
        memory = sum(node.memory for node in host.nodes) // len(host.cpus)
        kib = max(1024, int(memory * vcpus * draw.choice([0.1, 0.6, 1])))
        name = f"g{len(guests):03}"
        guests.append(Guest(name, name, vcpus=vcpus, online=tuple(range(vcpus)), memory=kib))
        left -= vcpus
    return guests


def pairs(draw: random.Random, host: Host) -> list[Guest]:
    """Guests with two threads a core, some with an odd vCPU, for most of a host's CPUs."""
    most = max(2, max(len(node.cpus) for node in host.nodes) // 2)
    guests: list[Guest] = []
    while sum(guest.vcpus for guest in guests) < 0.8 * len(host.cpus):
        vcpus, name = draw.randint(2, most), f"g{len(guests):03}"
        shape = CpuTopology(cores=-(-vcpus // 2), threads=2)
        online = tuple(range(vcpus))
        guests.append(Guest(name, name, vcpus=vcpus, online=online, topology=shape, memory=1024))
    return guests


def with_plain_memory(host: Host) -> Host:
    """Every node with CPUs has memory for them, and no pools: the check knows neither."""
    nodes = tuple(
        replace(node, memory=len(node.cpus) << 20, pages={}, available=None, free_pages=None)
        for node in host.nodes
    )
    return replace(host, nodes=nodes, isolated=frozenset(), nohz_full=frozenset())


def several_nodes() -> list[str]:
    """Machines with more nodes with CPUs than one."""
    return [name for name in machines.NAMES if len(machines.by_capabilities(name).grid.nodes) > 1]


@pytest.mark.parametrize("mode", ["node", "dedicated"])
def test_no_guest_is_split_that_fits_in_one_node(mode: str) -> None:
    """On each machine, from seeds; and the question arises often, so that this says something."""
    machines.needed()
    plans = looked = 0
    for name in several_nodes():
        host = with_plain_memory(machines.by_capabilities(name))
        for seed in range(10 if len(host.cpus) <= 64 else 2):
            draw = random.Random(f"{name} {seed}")
            policy = parse({"policy": mode, "overcommit": draw.choice(["1", "1.5", "4"])})
            guests = crowd(draw, host)
            found = check_no_needless_split(host, guests, policy, plan(host, guests, policy, {}))
            plans += 1
            looked += bool(found)
    assert looked > plans / 3, f"only {looked} of {plans} plans have a guest on several nodes"


def test_the_check_finds_a_needless_split() -> None:
    """A plan that is made worse by hand does not pass."""
    machines.needed()
    host = with_plain_memory(machines.by_capabilities(several_nodes()[0]))
    guest = Guest("a", "a", vcpus=2, online=(0, 1), memory=1024)
    made = plan(host, [guest], parse({}), {})
    [one] = made.placements
    assert check_no_needless_split(host, [guest], parse({}), made) == 0
    cpus = [str(min(node.cpus & host.cpus.keys())) for node in host.nodes if node.cpus][:2]
    worse = replace(one, vcpus=dict(enumerate(cpus)))
    with pytest.raises(AssertionError, match="a fits on node"):
        check_no_needless_split(host, [guest], parse({}), replace(made, placements=(worse,)))


@pytest.mark.parametrize("smt", ["prefer", "require"])
def test_guest_siblings_are_on_host_siblings(smt: str) -> None:
    """Guests of two threads a core on all machines that have such cores; pairs are looked at."""
    machines.needed()
    looked = 0
    for name in machines.NAMES:
        host = machines.by_capabilities(name)
        if not all(len(cpu.siblings) == 2 for cpu in host.cpus.values()):
            continue
        for seed in range(10):
            draw = random.Random(f"{name} {seed}")
            guests = pairs(draw, host)
            policy = parse({"policy": "dedicated", "smt": smt})
            looked += check_siblings(host, guests, policy, plan(host, guests, policy, {}))
    assert looked > 200, "pairs of vCPUs that were looked at"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_plans(draw: random.Random) -> None:
    machines.needed()
    read = draw.choice([machines.by_capabilities, machines.by_sysfs])
    host = read(draw.choice(machines.NAMES))
    guests, policy = some_guests(draw, host), some_policy(draw, host)
    made = plan(host, guests, policy, {})
    check_cpus(host, guests, policy, made)
    check_housekeeping(host, policy, made)
    check_whole_cores(host, policy, made)
    event(f"some are dedicated: {bool(dedicated(made))}")
    event(f"some are split: {any(len(one.nodes) > 1 for one in made.placements)}")
    current = {one.uuid: one for one in made.placements}
    assert plan(host, draw.sample(guests, len(guests)), policy, {}) == made
    assert plan(host, guests, policy, current) == made
    part = guests[: len(guests) // 2]
    planner = Planner()
    begun = {one.uuid: one for one in planner.plan(host, part, policy, {}).placements}
    following = planner.plan(host, guests, policy, begun)
    assert following == plan(host, guests, policy, begun)
