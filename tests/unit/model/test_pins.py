# SPDX-License-Identifier: GPL-2.0-or-later
"""Pins in messages."""

from __future__ import annotations

import pytest

from tuned_virt.model.pins import Pins


def test_pins_in_words() -> None:
    pins = Pins({0: "4", 1: "0-3"}, "0-1", {2: "5"}, ("strict", "0"))
    assert repr(pins) == (
        "Pins(vCPU 0: 4, vCPU 1: 0-3, emulator: 0-1, IOThread 2: 5, memory: strict=0)"
    )


def test_what_is_no_pins_says_what_is_wrong() -> None:
    """The file of placements may be damaged by hand."""
    sound = Pins({0: "4"}, "0-1", {2: "5"}, ("strict", "0")).to_json()
    assert Pins.from_json(sound).to_json() == sound
    with pytest.raises(TypeError, match=r"^the emulator's CPUs are not text$"):
        Pins.from_json({**sound, "emulator": 3})
    for memory in (("1", "0"), ("strict", 0)):
        with pytest.raises(ValueError, match=r"^its memory has no mode of <numatune>$"):
            Pins.from_json({**sound, "memory": memory})
