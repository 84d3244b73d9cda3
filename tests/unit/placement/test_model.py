# SPDX-License-Identifier: GPL-2.0-or-later
"""What a placement means for libvirt, in pins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuned_virt.model.pins import Pins
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind

FLOATING = Placement(
    "web1", "u", PlacementKind.SHARED, (0,), {0: "0-7", 1: "0-7"}, "0-1", {1: "2-3"}, None, "why"
)
DEDICATED = replace(FLOATING, kind=PlacementKind.DEDICATED, vcpus={0: "4", 1: "5"})


def test_vcpus_that_a_floating_guest_may_get_go_where_the_others_are() -> None:
    assert FLOATING.pins(4).vcpus == dict.fromkeys(range(4), "0-7")


def test_those_of_a_dedicated_guest_go_where_its_emulator_is() -> None:
    assert DEDICATED.pins(4).vcpus == {0: "4", 1: "5", 2: "0-1", 3: "0-1"}


def test_a_vcpu_that_is_offline_has_no_pin_unless_it_is_asked_for() -> None:
    one = replace(DEDICATED, vcpus={1: "5"})
    assert one.pins().vcpus == {1: "5"}


def test_or_beside_its_first_vcpu_where_the_emulator_is_left_alone() -> None:
    alone = replace(DEDICATED, emulator="")
    assert alone.pins(3).vcpus == {0: "4", 1: "5", 2: "4"}
    assert alone.pins(3).emulator == ""


def test_a_guest_that_is_not_placed_has_no_pins() -> None:
    unplaced = replace(FLOATING, kind=PlacementKind.UNPLACED, vcpus={}, iothreads={}, emulator="")
    assert unplaced.pins(4) == Pins({}, None, {}, None)
    assert replace(unplaced, emulator="0-1").pins(2) == Pins({}, "0-1", {}, None)


@pytest.mark.parametrize(
    ("mode", "wall"),
    [("move", None), ("restrictive", ("restrictive", "0")), ("strict", ("strict", "0"))],
)
def test_memory_is_walled_only_where_the_plan_says_so(
    mode: str, wall: tuple[str, str] | None
) -> None:
    assert replace(FLOATING, memory=MemoryPlacement(mode, "0")).pins(2).memory == wall


def test_what_is_as_wanted_is_not_needed() -> None:
    there = Pins({0: "0-7", 1: "0-3"}, "0-1", {1: "2-3"})
    assert FLOATING.pins(2).without(there) == Pins({1: "0-7"})
