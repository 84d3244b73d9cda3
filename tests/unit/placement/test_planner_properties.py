# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every plan, on made-up hosts of all kinds, from empty to overfull."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.guests import crowds, policies
from tests.hosts import hosts
from tests.plans import check, check_no_needless_split, check_siblings, fresh, with_plain_memory
from tests.unit.model.guest.test_reader_published import TWO_NODES
from tests.unit.seen import UNTIL_SEEN, SeenEnough, seen_enough
from tuned_virt.model.guest import CpuTopology, Guest
from tuned_virt.placement import PlacementKind, parse

seeded = settings(
    max_examples=60, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
)
"""Where what is counted must be the same each time."""


@settings(suppress_health_check=[*HealthCheck])
@given(st.data())
def test_plans(data: Any) -> None:
    host = data.draw(hosts())
    check(host, data.draw(crowds(host)), data.draw(policies(host)))


@pytest.mark.large
def test_all_kinds_of_placements_are_made() -> None:
    """Otherwise the properties say little; on hosts with memory, or few guests have a place."""
    kinds: Counter[PlacementKind] = Counter()

    def fewest() -> int:
        return min(kinds[kind] for kind in PlacementKind)

    @settings(max_examples=60, parent=UNTIL_SEEN)
    @given(st.data())
    def look(data: Any) -> None:
        host = with_plain_memory(data.draw(hosts()))
        made = fresh(host, data.draw(crowds(host)), data.draw(policies(host)), {})
        kinds.update(one.kind for one in made.placements)
        seen_enough(fewest() >= 10)

    with suppress(SeenEnough):
        look()
    assert fewest() >= 10, kinds


@pytest.mark.large
@pytest.mark.parametrize("mode", ["node", "dedicated"])
def test_no_guest_is_split_that_fits_in_one_node(mode: str) -> None:
    """And the question arises often, so that this says something."""
    looked: list[int] = []

    @seeded
    @given(st.data(), st.sampled_from(["1", "1.5", "4"]))
    def look(data: Any, overcommit: str) -> None:
        host = with_plain_memory(data.draw(hosts()))
        policy = parse({"policy": mode, "overcommit": overcommit})
        crowd = data.draw(crowds(host, plain=True))
        made = fresh(host, crowd, policy, {})
        looked.append(check_no_needless_split(host, crowd, policy, made))

    look()
    assert sum(map(bool, looked)) > len(looked) / 4, f"of {len(looked)} plans"


def test_the_check_finds_a_needless_split() -> None:
    """A plan that is made worse by hand does not pass."""
    host = with_plain_memory(TWO_NODES)
    guest = Guest("a", "a", vcpus=2, online=(0, 1), memory=1024)
    policy = parse({"overcommit": "1"})
    made = fresh(host, [guest], policy, {})
    [one] = made.placements
    assert check_no_needless_split(host, [guest], policy, made) == 0
    worse = replace(one, vcpus={0: "0", 1: "8"})
    with pytest.raises(AssertionError, match="a fits on node"):
        check_no_needless_split(host, [guest], policy, replace(made, placements=(worse,)))


@pytest.mark.large
@pytest.mark.parametrize("smt", ["prefer", "require"])
def test_guest_siblings_are_on_host_siblings(smt: str) -> None:
    """Guests of two threads a core on hosts that have such cores; pairs are looked at."""
    looked: list[int] = []

    @seeded
    @given(st.data())
    def look(data: Any) -> None:
        host = with_plain_memory(data.draw(hosts(pairs=True)))
        policy = parse({"policy": "dedicated", "smt": smt})
        crowd = [
            replace(guest, memory=1024, topology=CpuTopology(cores=-(-guest.vcpus // 2), threads=2))
            for guest in data.draw(crowds(host, plain=True))
        ]
        looked.append(check_siblings(host, crowd, policy, fresh(host, crowd, policy, {})))

    look()
    assert sum(looked) > 200, "pairs of vCPUs that were looked at"
