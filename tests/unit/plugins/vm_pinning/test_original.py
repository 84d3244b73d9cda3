# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a guest's own pins is set back, and nothing else."""

from __future__ import annotations

import pytest

from tuned_virt.model.pins import Pins
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind
from tuned_virt.plugins.vm_pinning import original
from tuned_virt.plugins.vm_pinning.original import OriginalPins

PLACED = Placement(
    "web1",
    "u",
    PlacementKind.DEDICATED,
    (0,),
    {0: "4", 1: "5"},
    "0-1",
    {1: "0"},
    MemoryPlacement("strict", "0"),
    "",
)
FOUND = OriginalPins(
    "uri", "u", "web1", 1, 0, 0, Pins({0: "0-7", 1: "5"}, "0-7", {1: "0-7"}), nodes="0-3"
)


def test_a_placement_in_libvirts_words() -> None:
    pins = PLACED.pins(3)
    assert pins == Pins({0: "4", 1: "5", 2: "0-1"}, "0-1", {1: "0"}, ("strict", "0"))
    assert pins.without(FOUND.pins) == Pins({0: "4", 2: "0-1"}, "0-1", {1: "0"}, ("strict", "0")), (
        "a vCPU that is there already is left"
    )


def test_the_way_back_covers_what_was_set_and_nothing_else() -> None:
    assert FOUND.back(Pins({0: "4", 2: "0-1"}, None, {}, ("strict", "0"))) == Pins(
        {0: "0-7", 2: "0-7"}, None, {}, ("strict", "0-3")
    )
    assert original.parse(FOUND.text()) == FOUND
    for bad in ("", "{}", "[]", '{"vcpus": 3}'):
        with pytest.raises(ValueError, match=r"."):
            original.parse(bad)
