# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold for every plan, whatever the host and its guests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host, NumaNode
from tuned_virt.placement import (
    Placement,
    PlacementKind,
    PlacementPlan,
    PlacementPolicy,
    Planner,
    plan,
)
from tuned_virt.placement.policy import policy_for


def fresh(
    host: Host, guests: list[Guest], policy: PlacementPolicy, current: Mapping[str, Placement]
) -> PlacementPlan:
    """A plan that remembers none before it."""
    return plan(host, guests, policy, current)


def dedicated(made: PlacementPlan) -> dict[int, str]:
    """CPU → guest, each once."""
    taken: dict[int, str] = {}
    for one in made.placements:
        if one.kind is PlacementKind.DEDICATED:
            for text in one.vcpus.values():
                assert int(text) not in taken
                taken[int(text)] = one.guest
    return taken


def check_cpus(host: Host, guests: list[Guest], made: PlacementPlan) -> None:
    """Dedicated CPUs are one guest's own, no owner's, and outside what others float on."""
    taken = dedicated(made)
    assert taken.keys() <= host.cpus.keys()
    assert not taken.keys() & owned(host, guests)
    for one in made.placements:
        if one.kind is PlacementKind.SHARED:
            for text in one.vcpus.values():
                assert cpuset.parse(text) <= host.cpus.keys() - taken.keys()


def owned(host: Host, guests: list[Guest]) -> set[int]:
    """CPUs that owners wrote for vCPUs that are online, but for sets that leave out none."""
    sets = (guest.owned.vcpus.get(vcpu, frozenset()) for guest in guests for vcpu in guest.online)
    return {cpu for cpus in sets if not host.cpus.keys() <= cpus for cpu in cpus}


def check_owners(guests: list[Guest], made: PlacementPlan) -> None:
    """What an owner wrote about a thread is what the plan says of it, or the plan says nothing."""
    for guest, one in zip(guests, sorted(made.placements, key=lambda one: one.guest)):
        assert (guest.uuid, bool(one.why)) == (one.uuid, True)
        if guest.manager or guest.owned.automatic or guest.owned.realtime:
            assert one.kind is PlacementKind.OWNER
        if one.kind is PlacementKind.OWNER:
            written = {vcpu: guest.owned.vcpus.get(vcpu) for vcpu in one.vcpus}
            assert written == {vcpu: cpuset.parse(text) for vcpu, text in one.vcpus.items()}
        for number, cpus in guest.owned.iothreads.items():
            assert one.iothreads.get(number, cpuset.text(cpus)) == cpuset.text(cpus)
        if guest.owned.emulator:
            assert one.emulator in ("", cpuset.text(guest.owned.emulator))
        if guest.wishes.get("policy") == "none":
            assert one.kind in (PlacementKind.OWNER, PlacementKind.UNPLACED)


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
                assert not taken.keys() & host.cpus[_housekeeper(host, own)].siblings & own


def check_whole_cores(
    host: Host, guests: list[Guest], policy: PlacementPolicy, made: PlacementPlan
) -> None:
    """require and isolate: nobody else has a thread of a guest's cores."""
    taken = dedicated(made)
    known = {guest.uuid: guest for guest in guests}
    for one in made.placements:
        smt = policy_for(known[one.uuid], policy).smt.value
        if one.kind is not PlacementKind.DEDICATED or smt == "prefer":
            continue
        cores = [host.cpus[int(text)].siblings for text in one.vcpus.values()]
        assert {taken.get(cpu, one.guest) for core in cores for cpu in core} == {one.guest}
        if smt == "isolate":
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


def _housekeeper(host: Host, own: Iterable[int]) -> int:
    """The lowest of the slowest CPUs; cores without SMT beside ones with it are slower."""
    capacities = {
        cpu: cluster.capacity
        for node in host.grid.nodes
        for cluster in node.clusters
        for cpu in node.numbers(cluster.mask)
    }
    return min(own, key=lambda cpu: (capacities[cpu], cpu))


def reserved(host: Host, guests: list[Guest], policy: PlacementPolicy) -> set[int]:
    """CPUs that may not be dedicated at all: housekeeping, owners' pins, and on nodes with isolated
    CPUs all the others."""
    found = set(policy.housekeeping or ())
    found |= owned(host, guests)
    for node in host.nodes:
        own = usual(host, node)
        if own and policy.housekeeping is None:
            found |= host.cpus[_housekeeper(host, own)].siblings & own
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
            load[home] += 0 if one.kind is PlacementKind.DEDICATED else 1 / policy.vcpus_per_cpu
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
            room = shared * policy.vcpus_per_cpu + own
            if floats:
                part = math.ceil(len(homes) * len(cpus) / len(of_cpu))
                room = min(room, max(len(cpus), part))
            else:
                room = min(shared, len(cpus - taken.keys() - off_limits)) + own
            spare = memory[node.id] + guest.memory * own / len(homes)
            fits = room >= len(homes) - 1e-6 and spare >= guest.memory - 1e-6
            assert not fits, f"{guest.name} fits on node {node.id}: {one.why}"
    return looked


def with_plain_memory(host: Host) -> Host:
    """Every node with CPUs has memory for them, and no pools: the check of splits knows neither."""
    nodes = tuple(
        replace(node, memory=len(node.cpus) << 20, pages={}, available=None, free_pages=None)
        for node in host.nodes
    )
    return replace(host, nodes=nodes, isolated=frozenset(), nohz_full=frozenset())


# --- all of it ------------------------------------------------------------------------------------


def check(host: Host, guests: list[Guest], policy: PlacementPolicy) -> PlacementPlan:
    """All that must hold, and that a plan depends on no order and on no plan before it."""
    made = fresh(host, guests, policy, {})
    check_cpus(host, guests, made)
    check_owners(guests, made)
    check_housekeeping(host, policy, made)
    check_whole_cores(host, guests, policy, made)
    current = {one.uuid: one for one in made.placements}
    assert fresh(host, guests[::-1], policy, {}) == made
    assert fresh(host, guests, policy, current) == made
    planner = Planner()
    begun = planner.plan(host, guests[: len(guests) // 2], policy, {}).placements
    kept = {one.uuid: one for one in begun}
    following = planner.plan(host, guests, policy, kept)
    assert following == fresh(host, guests, policy, kept)
    return made
