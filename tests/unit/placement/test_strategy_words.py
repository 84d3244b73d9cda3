# SPDX-License-Identifier: GPL-2.0-or-later
"""What the ways to place a guest say."""

from __future__ import annotations

from tests.unit.machines import guest, machine
from tuned_virt.model.guest import CpuTopology
from tuned_virt.placement.demand import demand
from tuned_virt.placement.host_capacity import HostCapacity
from tuned_virt.placement.node_capacity import NodeCapacity, NodeMemory
from tuned_virt.placement.policy import PlacementPolicy, Smt
from tuned_virt.placement.strategy import Dedicated

HOST = machine(1)


def way(threads: int = 1, smt: Smt = Smt.PREFER) -> Dedicated:
    made = HostCapacity(HOST, [NodeCapacity(HOST.grid.nodes[0], 0, 0, 0)], NodeMemory(HOST))
    wants = guest("a", 4, topology=CpuTopology(cores=4 // threads, threads=threads))
    return Dedicated(made, demand(wants, PlacementPolicy(smt=smt), HOST.huge_page))


def test_why_one_node_is_better_in_the_order_of_the_scores() -> None:
    spans = "it spans 1 LLC, compared with 2"
    torn = "1 of its cores used only in part, compared with 2"
    rest = [
        "1 CPU of an LLC left over, compared with 2",
        "1 free CPU left over, compared with 2",
        "1 PCI device there, compared with 2: nodes with devices are left to guests that have some",
    ]
    for threads, middle in ((1, [spans, torn]), (2, [torn, spans])):
        assert [way(threads).reason(at, 1, 2) for at in range(8)] == [
            "1 of its vCPUs on CPUs that are not isolated, compared with 2",
            "1 of its vCPUs on slower cores, compared with 2",
            "LLCs of 1 KiB, compared with 2",
            *middle,
            *rest,
        ]
    assert way().reason(2, -96, -32) == "LLCs of 96 KiB, compared with 32", "more is better"


def test_what_a_node_must_have() -> None:
    words = {
        Smt.PREFER: ("1 CPU that can be dedicated", "2 CPUs that can be dedicated"),
        Smt.REQUIRE: (
            "1 CPU of a whole SMT core that can be dedicated",
            "2 CPUs of whole SMT cores that can be dedicated",
        ),
        Smt.ISOLATE: (
            "1 whole core that can be dedicated",
            "2 whole cores that can be dedicated",
        ),
    }
    for smt, said in words.items():
        assert tuple(way(smt=smt).room(vcpus) for vcpus in (1, 2)) == said
