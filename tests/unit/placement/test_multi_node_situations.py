# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that no node takes whole now: what is cut, how, and what is never torn apart."""

from __future__ import annotations

from tests.unit.machines import GIB, cpus_of, guest, machine, planned
from tuned_virt.model.guest import Cell, CpuTopology, Guest, UserPins
from tuned_virt.placement import Placement, PlacementKind

# --- what is not torn -----------------------------------------------------------------------------


def owner(*cpus: int) -> Guest:
    """A guest whose owner pinned one vCPU to each."""
    pins = UserPins(vcpus={vcpu: frozenset({cpu}) for vcpu, cpu in enumerate(cpus)})
    return guest("owner", len(cpus), owned=pins)


def cells(*sizes: int) -> tuple[Cell, ...]:
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    return tuple(
        Cell(number, frozenset(range(start, start + size)), GIB)
        for number, (start, size) in enumerate(zip(starts, sizes))
    )


def nodes_of(made: Placement, vcpus: range) -> set[int]:
    """Nodes of four CPUs each."""
    return {int(made.vcpus[vcpu].split("-")[0]) // 4 for vcpu in vcpus}


def test_cells_float_whole_where_only_torn_ones_could_be_dedicated() -> None:
    """Nova's "two cells, 3+1 free" (test_hardware.py, NUMATopologyFit): it refuses to tear one."""
    host = machine(2, cores=4, threads=1, llcs=1)
    wants = guest("a", 4, 2, cells=cells(2, 2))
    made = planned(host, wants, owner(5, 6), policy="dedicated", overcommit="2")["a"]
    assert (made.kind, made.ungranted) == (PlacementKind.SHARED, "policy=dedicated")
    assert "not dedicated: it needs 4 CPUs that can be dedicated" in made.why
    assert [len(nodes_of(made, range(2 * n, 2 * n + 2))) for n in (0, 1)] == [1, 1]
    alone = planned(host, wants, owner(0, 5, 6, 7))["a"]
    assert alone.kind is PlacementKind.UNPLACED, "one is free beside three"
    assert alone.why.startswith("not placed: it needs 4 free vCPUs; node 0 has the most (3)")


def test_cells_that_fit_are_whole() -> None:
    """https://github.com/kubevirt/kubevirt/issues/5846: 15 and 16 cores free, two cells."""
    host = machine(2, cores=16, threads=2, llcs=1, gib=64)
    for each in (14, 15):
        wants = guest(
            "a",
            4 * each,
            cells=cells(2 * each, 2 * each),
            topology=CpuTopology(cores=2 * each, threads=2),
        )
        made = planned(host, wants, policy="dedicated")["a"]
        assert made.kind is PlacementKind.DEDICATED
        halves = [{int(made.vcpus[v]) // 32 for v in cell.vcpus} for cell in wants.cells]
        assert sorted(map(sorted, halves)) == [[0], [1]], each
    too_wide = planned(host, guest("a", 62, cells=cells(31, 31)), policy="dedicated")["a"]
    assert too_wide.kind is PlacementKind.SHARED, "31 and 31 of 30 and 30 that can be dedicated"
    assert len(set(cpus_of(too_wide)[:31])) == len(set(cpus_of(too_wide)[31:])) == 1


def test_a_cell_wider_than_any_node_is_cut() -> None:
    host = machine(2, cores=4, threads=1, llcs=1)
    made = planned(host, guest("a", 8, cells=cells(6, 2)))["a"]
    assert (made.kind, made.nodes) == (PlacementKind.SHARED, (0, 1))


def test_two_vcpus_are_not_put_on_one_cpu_each_of_two_nodes() -> None:
    """Nova's "single cell, one CPU on each node": it refuses."""
    host = machine(2, cores=2, threads=1, llcs=1)
    wants = guest("a", 2)
    made = planned(host, wants, policy="dedicated")["a"]
    assert (made.kind, len(made.nodes)) == (PlacementKind.SHARED, 1)
    assert made.why.startswith("not dedicated: it needs 2 CPUs that can be dedicated; node 0 has")
    floating = planned(host, wants, owner(0, 2))["a"]
    assert floating.kind is PlacementKind.UNPLACED
    assert "it needs 2 free vCPUs; node 0 has the most (1)" in floating.why


def test_two_vcpus_on_nodes_of_one_cpu_have_no_other_way() -> None:
    made = planned(machine(2, cores=1, threads=1, llcs=1), guest("a", 2))["a"]
    assert made.nodes == (0, 1)


# --- how it is cut --------------------------------------------------------------------------------


def test_a_guest_of_both_ccds_has_as_much_of_each() -> None:
    """https://forum.proxmox.com/threads/124256: 5900X with "L3 as NUMA", a guest of 12 for VR; a
    core of each node is the host's."""
    host = machine(2, cores=6, threads=2, llcs=1, gib=16)
    wants = guest("vr", 12, topology=CpuTopology(cores=6, threads=2))
    made = planned(host, wants, policy="dedicated")["vr"]
    on = [int(text) // 12 for text in cpus_of(made)]
    assert (on.count(0), on.count(1)) == (6, 6)
    assert all(on[vcpu] == on[vcpu + 1] for vcpu in range(0, 12, 2))
