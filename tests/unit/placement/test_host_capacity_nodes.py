# SPDX-License-Identifier: GPL-2.0-or-later
"""Owners' <numatune> on hosts with nodes without CPUs (CXL, HBM, GPUs), and vNUMA cells without
vCPUs: where memory is, and which vCPUs are near it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.machines import GIB, cpus_of, guest, machine, planned
from tuned_virt.model.guest import Cell, Guest, HugePages, UserPins
from tuned_virt.model.topology import Host, NumaNode
from tuned_virt.placement import Placement, PlacementKind, PlacementPolicy
from tuned_virt.placement.demand import GuestPart, demand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.node_capacity import NodeCapacity, NodeMemory

TWO = machine(2, cores=8, threads=2, llcs=1, gib=64)
"""CPUs 0-15 and 16-31."""

ZERO, ONE, CXL = frozenset({0}), frozenset({1}), frozenset({2})


def with_cxl(nearest: int = 0, gib: int = 256, host: Host = TWO) -> Host:
    """Node 2 has memory alone."""
    far = {node: 14 if node == nearest else 24 for node in (0, 1)}
    nodes = [replace(one, distances={**one.distances, 2: far[one.id]}) for one in host.nodes]
    alone = NumaNode(2, frozenset(), gib * GIB, {**far, 2: 10}, {})
    return replace(host, nodes=(*nodes, alone))


def celled(*cells: tuple[int, int], name: str = "a", **more: Any) -> Guest:
    """vCPUs and GiB by cell."""
    starts = [sum(vcpus for vcpus, _ in cells[:at]) for at in range(len(cells))]
    made = tuple(
        Cell(number, frozenset(range(start, start + vcpus)), gib * GIB)
        for number, (start, (vcpus, gib)) in enumerate(zip(starts, cells))
    )
    vcpus = sum(number for number, _ in cells)
    return guest(name, vcpus, sum(gib for _, gib in cells), cells=made, **more)


def strict(*nodes: int, memnodes: Mapping[int, frozenset[int]] | None = None) -> UserPins:
    return UserPins(memory="strict", nodes=frozenset(nodes), memnodes=memnodes or {})


def nodes_by_vcpu(made: Placement) -> list[int]:
    return [int(text.split("-")[0]) // 16 for text in cpus_of(made)]


@pytest.mark.parametrize("mode", ["node", "dedicated"])
@pytest.mark.parametrize("crossed", [False, True])
def test_memnodes_on_two_nodes_take_the_vcpus_of_their_cells_there(
    mode: str, crossed: bool
) -> None:
    """The usual XML of NFV and HPC: https://github.com/open-mpi/hwloc/issues/712."""
    first, second = (ONE, ZERO) if crossed else (ZERO, ONE)
    wants = celled((4, 16), (4, 16), owned=strict(0, 1, memnodes={0: first, 1: second}))
    made = planned(TWO, wants, policy=mode)["a"]
    assert made.kind.value == {"node": "shared"}.get(mode, mode)
    assert nodes_by_vcpu(made) == [min(first)] * 4 + [min(second)] * 4
    assert made.memory is None, "it is its owner's"
    assert made.why == "nodes 0 and 1: its numatune puts its cells on different nodes"
    assert planned(TWO, wants, current=[made], policy=mode)["a"] == made


@pytest.mark.parametrize("mode", ["node", "dedicated"])
@pytest.mark.parametrize("near", [0, 1])
def test_a_cell_of_memory_alone_is_on_cxl_and_the_vcpus_are_near_it(mode: str, near: int) -> None:
    """libvirt's formatdomain: a <cell> without cpus, with a memnode of its own."""
    host = with_cxl(near)
    free = celled((8, 16), (0, 64), owned=UserPins(memnodes={1: CXL}))
    made = planned(host, free, policy=mode)["a"]
    assert nodes_by_vcpu(made) == [near] * 8, made.why
    bound = celled(
        (8, 16), (0, 64), owned=strict(1 - near, 2, memnodes={0: frozenset({1 - near}), 1: CXL})
    )
    made = planned(host, bound, policy=mode)["a"]
    assert nodes_by_vcpu(made) == [1 - near] * 8, "its first cell is there"
    assert planned(host, bound, current=[made], policy=mode)["a"] == made


def test_memory_on_cxl_takes_none_of_the_nodes_with_cpus() -> None:
    host = with_cxl(0, gib=64)
    wants = celled((8, 16), (0, 60), owned=strict(0, 2, memnodes={0: ZERO, 1: CXL}))
    beside = guest("b", 4, 40, owned=strict(0))
    made = planned(host, wants, beside)
    assert [made[name].nodes for name in "ab"] == [(0,), (0,)]
    more = celled((8, 16), (0, 5), name="c", owned=strict(0, 2, memnodes={0: ZERO, 1: CXL}))
    assert planned(host, wants, more)["c"].kind is PlacementKind.UNPLACED, "CXL is full"


@pytest.mark.parametrize("mode", ["node", "dedicated"])
@pytest.mark.parametrize("near", [0, 1])
def test_a_nodeset_without_cpus_draws_vcpus_to_the_nearest_node_with_cpus(
    mode: str, near: int
) -> None:
    """A GPU's or CXL's memory in <numatune>: https://github.com/kubevirt/kubevirt/pull/17493."""
    host = with_cxl(near)
    made = planned(host, guest("a", 8, 100, owned=strict(2)), policy=mode)["a"]
    assert nodes_by_vcpu(made) == [near] * 8
    assert "nearer to the memory that its numatune names, on nodes without CPUs" in made.why
    own = frozenset(range(16 * near, 16 * near + 15))
    full = guest("full", 15, owned=UserPins(vcpus={v: frozenset({c}) for v, c in enumerate(own)}))
    beside = planned(host, guest("a", 8, 100, owned=strict(2)), full, policy=mode)["a"]
    assert nodes_by_vcpu(beside) == [1 - near] * 8, "the next nearest, as that is full"
    cells = celled((4, 50), (4, 50), owned=strict(2))
    assert nodes_by_vcpu(planned(host, cells, policy=mode)["a"]) == [near] * 8


def test_a_nodeset_with_cpus_and_cxl_has_both_for_its_memory() -> None:
    wants = guest("a", 8, 100, owned=strict(0, 2))
    made = planned(with_cxl(1), wants)["a"]
    assert (made.nodes, made.kind) == ((0,), PlacementKind.SHARED)
    assert "its memory spans nodes 0,2" in made.why


def test_a_numatune_that_names_no_node_of_the_host_is_said() -> None:
    made = planned(TWO, guest("a", 2, owned=strict(7)))["a"]
    assert made.why.startswith("not placed: its numatune allows no node of this host")


# --- cells whose vCPUs are not plugged in ---------------------------------------------------------


@pytest.mark.parametrize("mode", ["node", "dedicated"])
def test_a_cell_without_vcpus_has_its_memory_on_the_node_that_was_found_for_it(mode: str) -> None:
    """https://github.com/kubevirt/kubevirt/pull/14625: current below the maximum; 2 x 60 GiB."""
    wants = replace(celled((4, 60), (4, 60)), online=(0, 1, 2, 3))
    made = planned(TWO, wants, policy=mode)["a"]
    assert (made.nodes, nodes_by_vcpu(made)) == ((0,), [0] * 4)
    assert made.memory is not None
    assert (made.memory.nodeset, made.memory.cells) == ("0-1", {0: 0, 1: 1})
    assert made.why.endswith("memory of its cells without vCPUs is on node 1")
    assert planned(TWO, wants, current=[made], policy=mode)["a"] == made
    beside = planned(TWO, wants, guest("b", 1, 9), guest("c", 1, 8), policy=mode)
    assert beside["b"].kind is PlacementKind.UNPLACED, "4 and 4 GiB are left"
    assert "its memory spans nodes 0-1" in beside["c"].why


@pytest.mark.parametrize("mode", ["node", "dedicated"])
def test_vcpus_that_are_plugged_in_come_to_the_memory_of_their_cell(mode: str) -> None:
    wants = replace(celled((4, 60), (4, 60)), online=(0, 1, 2, 3))
    made = planned(TWO, wants, policy=mode)["a"]
    grown = replace(wants, online=tuple(range(6)))
    again = planned(TWO, grown, current=[made], policy=mode)["a"]
    assert nodes_by_vcpu(again) == [0] * 4 + [1] * 2
    assert {vcpu: again.vcpus[vcpu] for vcpu in range(4)} == made.vcpus
    assert planned(TWO, grown, current=[again], policy=mode)["a"] == again


def test_huge_pages_of_a_cell_without_vcpus() -> None:
    nodes = tuple(
        replace(node, free_pages={1 << 20: pages}) for node, pages in zip(TWO.nodes, (4, 8))
    )
    wants = replace(celled((4, 4), (4, 8)), online=(0, 1, 2, 3), huge_pages=(HugePages(1 << 20),))
    made = planned(replace(TWO, nodes=nodes), wants)["a"]
    assert made.memory is not None
    assert (made.nodes, made.memory.cells) == ((0,), {0: 0, 1: 1})


def test_the_nearest_of_several_nodes_and_how_much_farther_it_is() -> None:
    """CXL memory at 24 and 14 from node 0."""
    host = with_cxl(1)
    far = [
        replace(one, distances={**one.distances, 3: 14 if one.id == 0 else 24}) for one in TWO.nodes
    ]
    alone = NumaNode(3, frozenset(), GIB, {0: 14, 1: 24, 3: 10}, {})
    nodes = [
        replace(one, distances={**one.distances, **host.by_id[one.id].distances}) for one in far
    ]
    both = replace(host, nodes=(*nodes, host.by_id[2], alone))
    made = HostCapacity(both, [NodeCapacity(n, 0, 0, 0) for n in both.grid.nodes], NodeMemory(both))
    part = GuestPart(0, (0,), GIB, {}, frozenset({2, 3}))
    assert [(made.home(part, at), made.beyond(part, at)) for at in (0, 1)] == [(3, 4), (2, 4)]
    with_device = guest("a", 1, devices=("0000:3b:00.0",))
    assert (made.devices_kept(with_device), made.floating) == ([0, 0], 0)
    held = HostCapacity(replace(both, devices={"0000:3b:00.0": 1}), made.nodes, made.memory)
    assert (held.devices_kept(with_device), held.devices_kept(guest("b", 1))) == ([0, 0], [0, 1])


def test_parts_of_a_guests_memory_are_whole_kib() -> None:
    """Sums of thirds depend on the order of guests."""
    made = HostCapacity(TWO, [NodeCapacity(n, 0, 0, 0) for n in TWO.grid.nodes], NodeMemory(TWO))
    wants = demand(guest("a", 3, 1), PlacementPolicy(), 2048)
    shares = made.shares(wants, {0: (0, 1), 1: (2,)})
    assert [share.memory for share in shares] == [round(GIB * 2 / 3), round(GIB / 3)]
