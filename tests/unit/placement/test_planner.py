# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tuned_virt.model.guest import Guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import PlacementKind, parse, plan

DATA = Path(__file__).parents[2] / "data"

TWO_NODES = Host.from_xml((DATA / "hosts/two-nodes.xml").read_text())
"""Nodes 0 and 1, each two LLCs of two cores with two threads: CPUs 0-7 and 8-15; 8 GiB each."""


def guest(name: str, vcpus: int, gib: float = 1) -> Guest:
    kib = int(gib * 2**20)
    return Guest(name, f"uuid-{name}", vcpus=vcpus, online=tuple(range(vcpus)), memory=kib)


def test_guests_float_each_in_a_node_and_stay_there() -> None:
    guests = [guest("a", 4), guest("b", 6), guest("c", 2)]
    one_each = parse({"overcommit": "1"})
    first = plan(TWO_NODES, guests, one_each, {})
    assert {one.guest: (one.kind, one.nodes) for one in first.placements} == {
        "a": (PlacementKind.SHARED, (1,)),
        "b": (PlacementKind.SHARED, (0,)),
        "c": (PlacementKind.SHARED, (1,)),
    }
    current = {one.uuid: one for one in first.placements}
    assert plan(TWO_NODES, guests, one_each, current) == first


def test_dedicated_cpus_leave_the_first_core_of_a_node() -> None:
    made = plan(TWO_NODES, [guest("a", 4)], parse({"policy": "dedicated"}), {})
    [one] = made.placements
    assert (one.kind, one.nodes, one.emulator) == (PlacementKind.DEDICATED, (0,), "0-3")
    assert one.vcpus == {0: "4", 1: "5", 2: "6", 3: "7"}


def test_a_split_guest_moves_only_when_asked() -> None:
    wanted = guest("a", 4)
    [placed] = plan(TWO_NODES, [wanted], parse({}), {}).placements
    split = replace(placed, nodes=(0, 1), vcpus={0: "0-7", 1: "0-7", 2: "8-15", 3: "8-15"})
    current = {split.uuid: split}
    [stays] = plan(TWO_NODES, [wanted], parse({}), current).placements
    assert stays.nodes == (0, 1)
    [moved] = plan(TWO_NODES, [wanted], parse({"rebalance": "1"}), current).placements
    assert moved.nodes == (0,)
    assert moved.why.startswith("moved to a better place")
