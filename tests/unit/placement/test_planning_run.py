# SPDX-License-Identifier: GPL-2.0-or-later
"""How a plan is made: what it is told of guests, and what owners' guests take of memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.machines import guest, machine, planned
from tuned_virt.model.guest import HugePages, UserPins
from tuned_virt.placement import PlacementKind, parse, plan

M2 = 2048


def test_what_host_and_guests_say_is_all_said() -> None:
    host = replace(machine(1), notes=("the host is odd",))
    guests = [guest("a", 1, notes=("its clock",)), guest("b", 1, notes=("its disk", "its door"))]
    assert plan(host, guests, parse({}), {}).warnings == (
        "the host is odd", "guest a: its clock", "guest b: its disk", "guest b: its door",
    )  # fmt: skip


@pytest.mark.parametrize("wishes", [{"policy": "none"}, {"policy": "nonsense"}])
def test_a_guest_that_is_not_placed_is_told_by_name_and_uuid(wishes: dict[str, str]) -> None:
    one = planned(machine(1), guest("a", 1, wishes=wishes))["a"]
    assert (one.kind, one.guest, one.uuid) == (PlacementKind.UNPLACED, "a", "uuid-a")


def test_pages_of_no_size_are_of_the_hosts_default() -> None:
    base = machine(2)
    nodes = [replace(node, free_pages={M2: n}) for node, n in zip(base.nodes, (511, 512))]
    wants = guest("a", 1, 1, huge_pages=(HugePages(None),))
    assert planned(replace(base, nodes=tuple(nodes)), wants)["a"].nodes == (1,)


def test_an_owners_guest_that_does_not_run_will_have_its_memory_where_its_vcpus_are() -> None:
    host = replace(machine(2), devices={"d": 0})
    owners = guest("o", 1, 7, owned=UserPins(vcpus={0: frozenset({0})}))
    for gib, node in ((1, 0), (2, 1)):
        assert planned(host, owners, guest("a", 1, gib, devices=("d",)))["a"].nodes == (node,)


def test_its_huge_pages_are_on_the_nodes_that_it_names_in_equal_parts() -> None:
    base = machine(2)
    host = replace(base, nodes=tuple(replace(node, free_pages={M2: 1024}) for node in base.nodes))
    pages = (HugePages(None),)
    owners = guest(
        "o", 1, 2, huge_pages=pages,
        owned=UserPins(vcpus={0: frozenset({0})}, memory="strict", nodes=frozenset({0, 1})),
    )  # fmt: skip
    fits = planned(host, owners, guest("a", 1, 1, huge_pages=pages))["a"]
    assert fits.kind is PlacementKind.SHARED
    lacks = planned(host, owners, guest("a", 1, 1 + 1 / 512, huge_pages=pages))["a"]
    assert lacks.kind is PlacementKind.UNPLACED
