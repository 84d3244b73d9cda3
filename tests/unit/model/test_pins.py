# SPDX-License-Identifier: GPL-2.0-or-later
"""Pins in messages."""

from __future__ import annotations

from tuned_virt.model.pins import Pins


def test_pins_in_words() -> None:
    pins = Pins({0: "4", 1: "0-3"}, "0-1", {2: "5"}, ("strict", "0"))
    assert repr(pins) == (
        "Pins(vCPU 0: 4, vCPU 1: 0-3, emulator: 0-1, IOThread 2: 5, memory: strict=0)"
    )
