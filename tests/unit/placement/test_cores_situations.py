# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs that are not alike, guests' dies, and vCPUs that are not all plugged in: people's situations
and where an expert puts the guest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.machines import GIB, cpus_of, guest, machine, planned
from tuned_virt.model.guest import Cell, CpuTopology, Guest, UserPins
from tuned_virt.model.topology import Cache, CpuDetail, Host, NumaNode
from tuned_virt.placement import Placement, PlacementKind


def hybrid(fast: int, slow: int, *, told: bool = True, caches: int = 1) -> Host:
    """Performance cores with two threads, then efficient ones with one, as in Intel's desktop CPUs;
    told: the kernel says which are which (cpu_atom)."""
    cpus = {}
    for cpu in range(2 * fast + slow):
        first = cpu - cpu % 2
        quick = cpu < 2 * fast
        siblings = frozenset({first, first + 1} if quick else {cpu})
        cpus[cpu] = CpuDetail(cpu, 0, 0, 0, cpu, siblings, 512 if told and not quick else 1024)
    each = len(cpus) // caches
    llcs = tuple(Cache(frozenset(range(n * each, n * each + each)), 30720) for n in range(caches))
    return Host((NumaNode(0, frozenset(cpus), 64 * GIB, {0: 10}, {}),), cpus, llcs)


def pairs(vcpus: int) -> CpuTopology:
    return CpuTopology(cores=vcpus // 2, threads=2)


def dedicated(host: Host, wants: Guest, *others: Guest, **options: Any) -> Placement:
    return planned(host, wants, *others, policy="dedicated", **options)[wants.name]


def siblings_sit_on_siblings(host: Host, wants: Guest, made: Placement) -> bool:
    """Whether each guest core is on one host core, and no other guest core is there."""
    cores: dict[int, set[frozenset[int]]] = {}
    for vcpu, text in made.vcpus.items():
        cores.setdefault(vcpu // wants.threads, set()).add(host.cpus[int(text)].siblings)
    used = [core for found in cores.values() for core in found]
    return len(used) == len(cores) == len(set(used))


# --- kinds of cores -------------------------------------------------------------------------------


def graced_blackwell() -> Host:
    """NVIDIA's GB10: ten fast cores and ten others, in two clusters with a cache each; the kernel
    gives some of a kind a little more (as hwloc's nvidia-dgx-gb10 has it)."""
    told = [718] * 5 + [997] * 5 + [731] * 5 + [1017] * 4 + [1024]
    cpus = {
        cpu: CpuDetail(cpu, 0, 0, 0, cpu, frozenset({cpu}), capacity)
        for cpu, capacity in enumerate(told)
    }
    caches = (Cache(frozenset(range(10)), 8 << 10), Cache(frozenset(range(10, 20)), 16 << 10))
    return Host((NumaNode(0, frozenset(cpus), 128 * GIB, {0: 10}, {}),), cpus, caches)


@pytest.mark.parametrize(
    ("vcpus", "cpus"),
    [(4, {5, 6, 7, 8}), (5, {5, 6, 7, 8, 9}), (10, {5, 6, 7, 8, 9, 15, 16, 17, 18, 19})],
)
def test_cores_of_one_kind_are_one_kind_also_if_some_reach_a_higher_clock(
    vcpus: int, cpus: set[int]
) -> None:
    made = dedicated(graced_blackwell(), guest("a", vcpus))
    assert set(map(int, cpus_of(made))) == cpus
    six = dedicated(graced_blackwell(), guest("a", 6))
    assert set(map(int, cpus_of(six))) < {5, 6, 7, 8, 9, 15, 16, 17, 18, 19}


def slow_first(nodes: int) -> Host:
    """Each node has cores of one kind; those of the first half are slow."""
    host = machine(nodes)
    slow = nodes // 2
    cpus = {
        cpu: replace(one, capacity=300 if one.node < slow else 1024)
        for cpu, one in host.cpus.items()
    }
    return replace(host, cpus=cpus)


def test_a_node_of_fast_cores_comes_before_one_of_slow_ones() -> None:
    assert dedicated(slow_first(2), guest("a", 2)).nodes == (1,)


@pytest.mark.parametrize("cells", [False, True])
def test_several_nodes_of_fast_cores_come_before_those_of_slow_ones(cells: bool) -> None:
    parts = tuple(Cell(n, frozenset(range(4 * n, 4 * n + 4)), GIB // 2) for n in (0, 1))
    made = dedicated(slow_first(4), guest("a", 8, cells=parts if cells else ()))
    assert made.nodes == (2, 3)


@pytest.mark.parametrize("cells", [False, True])
def test_several_nodes_with_isolated_cpus_come_before_others(cells: bool) -> None:
    host = replace(machine(4), isolated=frozenset(range(16, 32)))
    parts = tuple(Cell(n, frozenset(range(6 * n, 6 * n + 6)), GIB // 2) for n in (0, 1))
    made = dedicated(host, guest("a", 12, cells=parts if cells else ()))
    assert made.nodes == (2, 3)


@pytest.mark.parametrize("told", [True, False], ids=["by the kernel", "by SMT alone"])
@pytest.mark.parametrize("smt", ["prefer", "require", "isolate"])
def test_a_gaming_guest_gets_performance_cores(told: bool, smt: str) -> None:
    """https://github.com/virt-manager/virt-manager/issues/155,
    https://github.com/cockpit-project/cockpit-machines/issues/2121: 8P+4E, 6P+8E, 8P+16E."""
    for fast, slow in ((8, 4), (6, 8), (8, 16)):
        for vcpus in (4, 6):
            host = hybrid(fast, slow, told=told)
            made = dedicated(host, guest("win11", vcpus, topology=pairs(vcpus)), smt=smt)
            chosen = {int(text) for text in made.vcpus.values()}
            assert chosen <= set(range(2 * fast)), (fast, slow, vcpus)


def test_a_guest_does_not_mix_kinds_of_cores_where_one_kind_has_room() -> None:
    """4 performance threads are left of 12, and 7 efficient cores of 8 (one is housekeeping)."""
    host = hybrid(6, 8)
    owner = guest("owner", 8, owned=UserPins(vcpus={v: frozenset({v}) for v in range(8)}))
    six = dedicated(host, guest("six", 6, topology=pairs(6)), owner)
    assert cpus_of(six) == ["13", "14", "15", "16", "17", "18"], "all of the other kind"
    four = dedicated(host, guest("four", 4, topology=pairs(4)), owner)
    assert cpus_of(four) == ["8", "9", "10", "11"]
    nine = dedicated(host, guest("nine", 9), owner)
    assert cpus_of(nine) == ["8", "9", "10", "11", "13", "14", "15", "16", "17"], "no other way"


def test_performance_cores_in_two_caches_come_before_an_efficient_cache_that_holds_all() -> None:
    host = hybrid(4, 8, caches=4)
    made = dedicated(host, guest("a", 6, topology=pairs(6)))
    assert cpus_of(made) == ["0", "1", "2", "3", "4", "5"]


def test_a_node_with_enough_performance_cores_comes_before_one_where_kinds_would_mix() -> None:
    one = hybrid(2, 4)
    cpus = {
        number + at: replace(
            cpu, id=number + at, node=node, siblings=frozenset(s + at for s in cpu.siblings)
        )
        for node, at in ((0, 0), (1, 8))
        for number, cpu in one.cpus.items()
    }
    nodes = tuple(
        NumaNode(n, frozenset(range(8 * n, 8 * n + 8)), 64 * GIB, {n: 10, 1 - n: 20}, {})
        for n in (0, 1)
    )
    owner = guest("owner", 1, owned=UserPins(vcpus={0: frozenset({0})}))
    made = dedicated(Host(nodes, cpus), guest("a", 4, topology=pairs(4)), owner)
    assert cpus_of(made) == ["8", "9", "10", "11"]
    assert "0 of its vCPUs on slower cores, compared with " in made.why, made.why


# --- dies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["sockets", "dies", "clusters"])
def test_each_die_of_a_guest_is_on_one_ccd(part: str) -> None:
    """A 7950X3D, https://github.com/spheenik/vfio-isolate/issues/14: two CCDs of 8 cores, a guest
    of 24 vCPUs in two dies; the first core is the host's."""
    host = machine(1, cores=16, threads=2, llcs=2, gib=64)
    wants = guest("dies", 24, topology=CpuTopology(cores=6, threads=2, **{part: 2}))
    for smt in ("prefer", "require"):
        made = dedicated(host, wants, smt=smt)
        ccds = [[int(made.vcpus[v]) // 16 for v in range(d * 12, d * 12 + 12)] for d in (0, 1)]
        assert [len(set(one)) for one in ccds] == [1, 1], smt
        assert ccds[0][0] != ccds[1][0]
        assert siblings_sit_on_siblings(host, wants, made)


def test_each_cell_of_a_guest_is_on_one_ccd() -> None:
    """Two vNUMA cells on a host of one node: their guest takes a cache for each."""
    host = machine(1, cores=16, threads=2, llcs=2, gib=64)
    parts = tuple(Cell(n, frozenset(range(12 * n, 12 * n + 12)), GIB // 2) for n in (0, 1))
    made = dedicated(host, guest("a", 24, cells=parts, topology=pairs(24)))
    ccds = [{int(made.vcpus[vcpu]) // 16 for vcpu in cell.vcpus} for cell in parts]
    assert [len(ccd) for ccd in ccds] == [1, 1]
    dealt = tuple(Cell(n, frozenset(range(n, 24, 2)), GIB // 2) for n in (0, 1))
    mixed = dedicated(host, guest("a", 24, cells=dealt))
    assert mixed.kind is PlacementKind.DEDICATED


def test_dies_that_fit_into_one_ccd_stay_together() -> None:
    host = machine(1, cores=16, threads=2, llcs=2, gib=64)
    small = guest("dies", 12, topology=CpuTopology(dies=2, cores=3, threads=2))
    assert {int(text) // 16 for text in dedicated(host, small).vcpus.values()} == {0}


def test_dies_over_nodes_where_each_ccd_is_one() -> None:
    """https://forum.proxmox.com/threads/124256: "L3 as NUMA", with dies and without."""
    host = machine(2, cores=8, threads=2, llcs=1, gib=32)
    made = dedicated(host, guest("a", 24, topology=CpuTopology(dies=2, cores=6, threads=2)))
    assert [int(made.vcpus[v]) // 16 for v in range(24)] == [0] * 12 + [1] * 12


# --- vCPUs that are not plugged in ----------------------------------------------------------------


@pytest.mark.parametrize("smt", ["prefer", "require"])
@pytest.mark.parametrize("online", [(0, 2, 4, 6), (0, 1, 2, 4, 5, 7), (1, 2), (0, 1, 2), (3, 4, 6)])
def test_a_guest_core_sits_on_one_host_core_also_where_its_list_of_vcpus_has_holes(
    online: tuple[int, ...], smt: str
) -> None:
    """<vcpus><vcpu id= enabled='yes' hotpluggable='yes'>, libvirt's formatdomain."""
    host = machine(2, cores=8)
    wants = replace(guest("a", 8, topology=pairs(8)), online=online)
    made = dedicated(host, wants, smt=smt)
    assert made.kind is PlacementKind.DEDICATED
    assert made.vcpus.keys() == set(online)
    assert siblings_sit_on_siblings(host, wants, made)


@pytest.mark.parametrize("smt", ["prefer", "require"])
def test_a_plugged_thread_comes_beside_its_own(smt: str) -> None:
    host = machine(2, cores=8)
    first = replace(guest("a", 8, topology=pairs(8)), online=(0, 2, 4, 6))
    made = dedicated(host, first, smt=smt)
    grown = replace(first, online=tuple(range(8)))
    again = planned(host, grown, current=[made], policy="dedicated", smt=smt)["a"]
    assert {vcpu: again.vcpus[vcpu] for vcpu in first.online} == made.vcpus
    assert siblings_sit_on_siblings(host, grown, again)
    assert len(set(again.vcpus.values())) == 8
    assert planned(host, grown, current=[again], policy="dedicated", smt=smt)["a"] == again


def test_holes_give_way_where_there_is_no_room_for_them() -> None:
    host = machine(1, cores=3, llcs=1)
    wants = replace(guest("a", 8, topology=pairs(8)), online=(0, 2, 4, 6))
    made = dedicated(host, wants)
    assert cpus_of(made) == ["2", "3", "4", "5"]


def test_holes_give_way_one_by_one() -> None:
    """Four guest cores on three that are free: only two of them share one."""
    host = machine(1, cores=4, llcs=1)
    wants = replace(guest("a", 8, topology=pairs(8)), online=(0, 2, 4, 6))
    assert cpus_of(dedicated(host, wants)) == ["2", "4", "6", "7"]


# --- caches of different size ---------------------------------------------------------------------

X3D = replace(
    machine(1, cores=16, threads=2, llcs=2, gib=64),
    caches=(
        Cache(frozenset(range(16)), 96 << 10),
        Cache(frozenset(range(16, 32)), 32 << 10),
    ),
)
"""A 7950X3D: CPUs 0-15 share 96 MiB, 16-31 have 32 MiB and the higher clock."""


@pytest.mark.parametrize("vcpus", [4, 8, 16])
@pytest.mark.parametrize("smt", ["prefer", "require"])
@pytest.mark.parametrize(("prefer", "cpus"), [("cache", range(16)), ("clock", range(16, 32))])
def test_a_game_is_on_the_cache_that_is_preferred_and_the_host_on_the_other(
    vcpus: int, smt: str, prefer: str, cpus: range
) -> None:
    """https://github.com/spheenik/vfio-isolate/issues/14,
    https://github.com/FeralInteractive/gamemode/issues/412."""
    wants = guest("win11", vcpus, topology=pairs(vcpus))
    made = dedicated(X3D, wants, prefer=prefer, smt=smt)
    assert {int(text) for text in made.vcpus.values()} <= set(cpus), made.why
    size = 96 if prefer == "cache" else 32
    assert made.why.endswith(f"; LLC of {size} MiB, this host has 32 and 96 MiB (prefer={prefer})")
    assert planned(X3D, wants, current=[made], policy="dedicated", smt=smt, prefer=prefer) == {
        "win11": made
    }


def test_a_guest_that_prefers_none_is_told_which_cache_it_has() -> None:
    made = dedicated(X3D, guest("win11", 16, topology=pairs(16)))
    assert made.why.endswith("; LLC of 32 MiB, this host has 32 and 96 MiB (prefer=none)")
    both = dedicated(X3D, guest("win11", 24, topology=pairs(24)), prefer="cache")
    assert both.why.endswith("; LLC of 32 and 96 MiB, this host has 32 and 96 MiB (prefer=cache)")
    chosen = [int(text) for text in cpus_of(both)]
    assert chosen[:16] == list(range(16)), "as much of it as possible"
    equal = replace(X3D, caches=tuple(replace(one, size=32 << 10) for one in X3D.caches))
    assert "LLC" not in dedicated(equal, guest("win11", 16), prefer="cache").why


def test_the_node_with_the_preferred_cache_is_chosen_where_each_cache_is_a_node() -> None:
    host = machine(2, cores=8, threads=2, llcs=1, gib=32)
    sizes = replace(
        host,
        caches=tuple(replace(one, size=s << 10) for one, s in zip(host.caches, (32, 96))),
    )
    assert dedicated(sizes, guest("a", 8), prefer="cache").nodes == (1,)
    assert dedicated(sizes, guest("a", 8), prefer="clock").nodes == (0,)


def test_guests_that_prefer_differently_share_the_host() -> None:
    asks = [
        guest(name, 8, wishes={"policy": "dedicated", "prefer": name})
        for name in ("cache", "clock")
    ]
    made = planned(X3D, *asks)
    ccd = {name: {int(text) // 16 for text in one.vcpus.values()} for name, one in made.items()}
    assert ccd == {"cache": {0}, "clock": {1}}


# --- emulator threads -----------------------------------------------------------------------------


def test_the_emulator_of_a_dedicated_guest_runs_on_efficient_cores() -> None:
    """8P+4E: CPUs 16 to 19 are efficient, 16 is housekeeping."""
    host = hybrid(8, 4)
    made = dedicated(host, guest("win11", 4, topology=pairs(4), iothreads={1: ()}))
    assert (cpus_of(made), made.emulator) == (["0", "1", "2", "3"], "16-19")
    assert made.iothreads == {1: "4-19"}, "they are near their disk, on all that is not dedicated"
    kept = dedicated(host, guest("win11", 4), emulator="housekeeping")
    assert kept.emulator == "16"
    floating = planned(host, guest("a", 4))["a"]
    assert floating.emulator == "0-19", "nobody is confined for what gains nothing"
