# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every plan, on all captured machines, from empty to overfull."""

from __future__ import annotations

import random
from collections.abc import Mapping

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import machines
from tuned_virt import cpuset
from tuned_virt.guest import Cell, CpuTopology, Guest, Owned
from tuned_virt.placement import Kind, Placement, Plan, Policy, parse, plan, planner
from tuned_virt.topology import Host


def fresh(
    host: Host, guests: list[Guest], policy: Policy, current: Mapping[str, Placement]
) -> Plan:
    """A plan that remembers none before it."""
    planner._sessions = ()
    return plan(host, guests, policy, current)


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
    owned = Owned()
    if draw.random() < 0.1:
        owned = Owned(vcpus={vcpu: frozenset({draw.choice(cpus)}) for vcpu in range(vcpus)})
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


def some_policy(draw: random.Random, host: Host) -> Policy:
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


def dedicated(made: Plan) -> dict[int, str]:
    """CPU → guest, each once."""
    taken: dict[int, str] = {}
    for one in made.placements:
        if one.kind is Kind.DEDICATED:
            for text in one.vcpus.values():
                assert int(text) not in taken
                taken[int(text)] = one.guest
    return taken


def check_cpus(host: Host, guests: list[Guest], policy: Policy, made: Plan) -> None:
    taken = dedicated(made)
    assert taken.keys() <= host.cpus.keys()
    assert not taken.keys() & (policy.housekeeping or frozenset())
    pinned = {min(cpus) for guest in guests for cpus in guest.owned.vcpus.values()}
    assert len(host.cpus) == 1 or not taken.keys() & pinned
    for one in made.placements:
        if one.kind is Kind.SHARED:
            for text in one.vcpus.values():
                assert cpuset.parse(text) <= host.cpus.keys() - taken.keys()


def check_siblings(host: Host, policy: Policy, made: Plan) -> None:
    taken = dedicated(made)
    for one in made.placements:
        if one.kind is not Kind.DEDICATED or policy.smt.value == "prefer":
            continue
        cpus = [int(text) for text in one.vcpus.values()]
        cores = [host.cpus[cpu].siblings for cpu in cpus]
        assert {taken.get(cpu, one.guest) for core in cores for cpu in core} == {one.guest}
        if policy.smt.value == "isolate":
            assert len(set(cores)) == len(cores)
        else:
            assert all(len(core) > 1 for core in cores)
            assert len(set(cores)) <= len(cores) // 2 + len(one.nodes) * len(host.caches or [0])


def check_no_needless_split(host: Host, guests: list[Guest], policy: Policy, made: Plan) -> None:
    """Floating guests: the final room of a node, with what the guest has there, is too small."""
    needs = {guest.uuid: len(guest.online) for guest in guests}
    if policy.policy.value != "node" or any(guest.owned != Owned() for guest in guests):
        return
    cpus = {node.id: len(node.cpus & host.cpus.keys()) for node in host.nodes}
    load = dict.fromkeys(cpus, 0.0)
    of_cpu = {cpu: detail.node for cpu, detail in host.cpus.items()}
    homes = {
        one.uuid: [of_cpu[min(cpuset.parse(text))] for text in one.vcpus.values()]
        for one in made.placements
    }
    for nodes in homes.values():
        for node in nodes:
            load[node] += 1 / policy.overcommit
    for one in made.placements:
        if len(one.nodes) > 1 and all(guest.memory <= 1024 for guest in guests):
            for node, count in cpus.items():
                own = homes[one.uuid].count(node) / policy.overcommit
                room = (count - load[node] + own) * policy.overcommit
                assert room < needs[one.uuid]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_plans(draw: random.Random) -> None:
    machines.needed()
    read = draw.choice([machines.by_capabilities, machines.by_sysfs])
    host = read(draw.choice(machines.NAMES))
    guests, policy = some_guests(draw, host), some_policy(draw, host)
    made = fresh(host, guests, policy, {})
    check_cpus(host, guests, policy, made)
    check_siblings(host, policy, made)
    check_no_needless_split(host, guests, policy, made)
    current = {one.uuid: one for one in made.placements}
    assert fresh(host, draw.sample(guests, len(guests)), policy, {}) == made
    assert fresh(host, guests, policy, current) == made
    part = guests[: len(guests) // 2]
    begun = {one.uuid: one for one in fresh(host, part, policy, {}).placements}
    following = plan(host, guests, policy, begun)
    assert following == fresh(host, guests, policy, begun)
