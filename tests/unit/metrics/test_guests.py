# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests' families: counts by placement, series per guest, names that several guests have."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.metrics import guests
from tuned_virt.metrics.family import FamilySamples
from tuned_virt.metrics.guests import LONGEST_NAME, GuestValues
from tuned_virt.placement import PlacementKind

WEB = GuestValues(
    guest="web",
    uuid="8a7c",
    pid=100,
    placement=PlacementKind.SHARED,
    nodes=(0,),
    vcpus=4,
    waited=1.5,
    memory={0: 3 << 30, 1: 1 << 30},
    local=0.75,
    drift=0,
    ungranted=False,
    ksm_merged=0,
    ksm_profit=-128,
)


def by_name(*values: GuestValues) -> dict[str, FamilySamples]:
    return {one.family.name: one for one in guests.samples(values)}


def series(*values: GuestValues) -> int:
    return sum(len(one.values) for one in guests.samples(values))


def test_one_guest() -> None:
    found = {
        name.removeprefix("tuned_virt_"): dict(one.values) for name, one in by_name(WEB).items()
    }
    assert found == {
        "guests": {("dedicated",): 0, ("shared",): 1, ("unplaced",): 0, ("owner",): 0},
        "guest_placement_info": {("web", "8a7c", "shared"): 1},
        "guest_placement_node": {("web", "0"): 1},
        "guest_memory_bytes": {("web", "0"): 3 << 30, ("web", "1"): 1 << 30},
        "guest_vcpus": {("web",): 4},
        "guest_vcpu_delay_seconds_total": {("web",): 1.5},
        "guest_local_memory_ratio": {("web",): 0.75},
        "guest_drift": {("web",): 0},
        "guest_ungranted": {("web",): False},
        "guest_ksm_merged_bytes": {("web",): 0},
        "guest_ksm_profit_bytes": {("web",): -128},
    }


def test_no_guest_is_zero_of_each_kind() -> None:
    assert set(by_name()["tuned_virt_guests"].values.values()) == {0}
    assert series() == len(PlacementKind)


def test_a_guest_of_which_nothing_can_be_read_has_its_placement_alone() -> None:
    assert series(GuestValues("x", "", 1, PlacementKind.UNPLACED)) == len(PlacementKind) + 1


def test_where_the_record_cannot_be_read_no_placement_is_claimed() -> None:
    found = by_name(replace(WEB, placement=None), replace(WEB, guest="db"))
    assert found["tuned_virt_guests"].values == {}
    assert list(found["tuned_virt_guest_placement_info"].values) == [("db", "8a7c", "shared")]


def test_series_per_guest_do_not_depend_on_how_many_there_are_nor_on_their_vcpus() -> None:
    """Eight, one for each node that it is placed on, one for each with memory of it."""
    some = [replace(WEB, guest=f"g{n}", pid=n, vcpus=n) for n in range(1, 31)]
    assert series(*some) - len(PlacementKind) == 30 * (8 + 1 + 2)


def test_guests_of_one_name_have_the_number_of_their_process() -> None:
    same = [WEB, replace(WEB, pid=200), replace(WEB, guest="web-100", pid=300)]
    assert [one.guest for one in guests.distinct(same)] == ["web-100-100", "web-200", "web-100"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "a-1", "a-1-1", "a-2", "é" * 300]), st.integers(1, 9)),
        unique_by=lambda pair: pair[1],
    )
)
def test_names_are_distinct_and_short_whatever_they_are(pairs: list[tuple[str, int]]) -> None:
    values = [replace(WEB, guest=name, pid=pid) for name, pid in pairs]
    names = [one.guest for one in guests.distinct(values)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= LONGEST_NAME + 20 for name in names)
