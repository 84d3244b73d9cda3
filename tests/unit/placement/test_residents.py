# SPDX-License-Identifier: GPL-2.0-or-later
"""What running guests have now, by node, and a host on which that counts as free."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.machines import GIB, guest, machine
from tuned_virt.model.guest import HugePages
from tuned_virt.placement.node_capacity import MemoryShare
from tuned_virt.placement.residents import for_guests, resident

HOST = machine(2)
M2, G1 = 2048, 1 << 20


def test_ordinary_memory_is_in_kib_on_the_hosts_nodes() -> None:
    one = guest("a", 1, 4, resident={1: 1, 0: 3 * GIB, 9: GIB, 8: 0})
    assert resident(one, HOST) == [MemoryShare(0, 3 * GIB, {}), MemoryShare(1, 1, {})]
    assert resident(guest("a", 1, resident={0: 0}), HOST) == []


def test_huge_pages_are_in_pages_of_the_size_that_is_asked_for() -> None:
    there = {0: GIB}
    default = guest("a", 1, 1, huge_pages=(HugePages(None),), resident=there)
    assert resident(default, HOST) == [MemoryShare(0, 0, {M2: 512})]
    large = guest("a", 1, 1, huge_pages=(HugePages(G1),), resident=there)
    assert resident(large, HOST) == [MemoryShare(0, 0, {G1: 1})]


def test_base_pages_are_ordinary_memory_though_they_are_asked_for() -> None:
    small = guest("a", 1, 1, huge_pages=(HugePages(4),), resident={0: GIB})
    assert resident(small, HOST) == [MemoryShare(0, GIB, {})]


def test_what_guests_have_counts_as_free() -> None:
    measured = tuple(
        replace(node, available=GIB, free_pages={M2: 100, G1: 2}) for node in HOST.nodes
    )
    host = replace(HOST, nodes=measured)
    guests = [
        guest("a", 1, 2, resident={0: 2 * GIB}),
        guest("b", 1, 1, huge_pages=(HugePages(M2),), resident={0: GIB}),
    ]
    found = for_guests(host, guests)
    assert [node.available for node in found.nodes] == [3 * GIB, GIB]
    assert [node.free_pages for node in found.nodes] == [{M2: 612, G1: 2}, {M2: 100, G1: 2}]
    small = tuple(replace(node, free_pages={4: 7}) for node in measured)
    assert for_guests(replace(host, nodes=small), []).nodes == small, "base pages as they are"


def test_where_nothing_was_measured_the_host_stays_as_it_is() -> None:
    assert for_guests(HOST, [guest("a", 1, 2, resident={0: 2 * GIB})]) is HOST
