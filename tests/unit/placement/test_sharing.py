# SPDX-License-Identifier: GPL-2.0-or-later
"""The cores that guests get, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.machines import guest, machine
from tuned_virt.model.guest import CpuTopology, Guest, UserPins
from tuned_virt.model.topology import Host
from tuned_virt.placement import PlacementPlan, parse, plan
from tuned_virt.placement.sharing import CoreShare, core_shares, fair_shares


def shares(host: Host, *guests: Guest, **options: Any) -> dict[str, CoreShare]:
    made: PlacementPlan = plan(host, guests, parse(options), {})
    return {key[-1]: one for key, one in core_shares(host, guests, made.placements).items()}


def rounded(one: CoreShare) -> tuple[float, ...]:
    numbers = (one.alone, one.alone_unpinned, one.busy, one.busy_unpinned, one.kept)
    return tuple(round(number, 3) for number in numbers)


def test_a_guest_confined_to_the_threads_of_a_node_loses_a_third() -> None:
    """XenServer measured 40 to 75 %: xapi-project/xen-api#6763."""
    one = shares(machine(2, cores=8), guest("a", 16), overcommit="4")["a"]
    assert rounded(one) == (10.4, 16, 10.4, 16, 0.65)
    assert one.vcpus == 16


def test_a_guest_whose_vcpus_are_threads_asks_for_no_more_than_its_cores() -> None:
    wants = guest("a", 16, topology=CpuTopology(cores=8, threads=2))
    one = shares(machine(2, cores=8), wants, overcommit="4")["a"]
    assert rounded(one) == (10.4, 10.4, 10.4, 10.4, 1)


def test_guests_that_are_not_level_lose_to_those_beside_them() -> None:
    found = shares(machine(2, cores=8, threads=1), *(guest(n, 6) for n in "abc"), overcommit="4")
    assert rounded(found["a"]) == (6, 6, 4, 5.333, 0.75)
    assert rounded(found["b"]) == (6, 6, 6, 5.333, 1)


def test_dedicated_cpus_are_taken_from_the_others() -> None:
    host = machine(1, cores=8, threads=1)
    own = guest("a", 4, wishes={"policy": "dedicated"})
    found = shares(host, own, guest("b", 8))
    assert rounded(found["a"]) == (4, 4, 4, 2.667, 1)
    assert rounded(found["b"]) == (4, 8, 4, 5.333, 0.5)


def test_owners_pins_are_there_with_us_and_without() -> None:
    """Two guests of an owner share CPU 0; ours shuns it and loses nothing."""
    host = machine(1, cores=4, threads=1)
    owned = [guest(n, 1, owned=UserPins(vcpus={0: frozenset({0})})) for n in "xy"]
    found = shares(host, *owned, guest("a", 3))
    assert rounded(found["x"]) == (1, 1, 0.5, 0.5, 1)
    assert rounded(found["a"]) == (3, 3, 3, 3, 1)


def test_threads_with_many_places_fill_what_others_leave() -> None:
    """12 may run on node 0 alone, 2 on node 1 alone, 6 on both: 10 a node."""
    host = machine(2, cores=4, threads=1)
    zero, one = (frozenset(node.cpus) for node in host.nodes)
    found = fair_shares(host, {zero: 8, one: 2, zero | one: 6})
    assert found == {key: pytest.approx(0.5) for key in found}
    full = fair_shares(host, {zero: 12, one: 2, zero | one: 1})
    assert full[zero] == pytest.approx(1 / 3)
    assert full[one] == full[zero | one] == 1


def test_isolated_cpus_are_nobodys_without_a_pin() -> None:
    host = replace(machine(1, cores=4, threads=2), isolated=frozenset({4, 5, 6, 7}))
    one = shares(host, guest("a", 4))["a"]
    assert rounded(one) == (2.6, 2.6, 2.6, 2.6, 1)
    own = shares(host, guest("a", 4), policy="dedicated")["a"]
    assert own.alone == pytest.approx(2.6), "two cores"
    half = shares(replace(host, isolated=frozenset({1, 3, 5, 7})), guest("a", 4))["a"]
    assert half.busy == half.busy_unpinned == 4, "a core whose other thread is isolated is whole"
