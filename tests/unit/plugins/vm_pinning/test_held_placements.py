# SPDX-License-Identifier: GPL-2.0-or-later
"""What vm_pinning remembers of guests: whose a placement is, and what earlier versions wrote."""

from __future__ import annotations

import json
from pathlib import Path

from tuned_virt.core.state_file import boot_id
from tuned_virt.model.pins import Pins
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind
from tuned_virt.plugins.vm_pinning import held_placements, original
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.original import OriginalPins

PLACED = Placement(
    "web1", "u", PlacementKind.SHARED, (0,), {0: "0-3", 1: "0-3"}, "0-3", {1: "0-3"},
    MemoryPlacement("strict", "0", {0: 0}), "node 0: the only node",
)  # fmt: skip
HELD = HeldPlacement("u/7", "u", "web1", "web1", 5, PLACED, PLACED.pins(), remark="r", follows=True)

FIRST_VERSION = {
    "key": "u/7", "uuid": "u", "device": "web1", "name": "web1", "pid": 5,
    "placement": {
        "guest": "web1", "uuid": "u", "kind": "shared", "nodes": [0],
        "vcpus": {"0": "0-3", "1": "0-3"}, "emulator": "0-3", "iothreads": {"1": "0-3"},
        "memory": {"mode": "strict", "nodeset": "0", "cells": {"0": 0}},
        "why": "node 0: the only node", "chosen": False,
    },
    "pins": {
        "vcpus": {"0": "0-3", "1": "0-3"}, "emulator": "0-3", "iothreads": {"1": "0-3"},
        "memory": ["strict", "0"],
    },
    "failed": {}, "remark": "r", "observed": False, "configuration": "", "later": False,
    "follows": True,
}  # fmt: skip


def test_an_owners_guest_is_not_placed_by_us() -> None:
    owned = Placement("web1", "u", PlacementKind.OWNER, (0,), {0: "0"}, "", {}, None, "its owner")
    one = HeldPlacement("u/7", "u", "web1", "web1", 5, owned)
    assert (one.placed, one.planned) == (False, False)
    assert (HELD.placed, HELD.planned) == (True, True)


def test_the_record_is_as_the_first_version_wrote_it(tmp_path: Path) -> None:
    file = tmp_path / "vm_pinning.json"
    held_placements.save("qemu:///system", {"u/7": HELD}, file)
    content = json.loads(file.read_text())
    assert content["guests"] == {"qemu:///system": [FIRST_VERSION]}
    assert held_placements.load("qemu:///system", file) == {"u/7": HELD}
    file.write_text(json.dumps({"boot_id": boot_id(), "guests": {"x": [FIRST_VERSION]}}))
    assert held_placements.load("x", file) == {"u/7": HELD}


def test_originals_are_as_the_first_version_wrote_them() -> None:
    text = (
        '{"uri": "qemu:///system", "uuid": "u", "name": "web1", "id": 1, "pid": 5, "start": 7,'
        ' "vcpus": {"0": "0-7"}, "emulator": "0-7", "iothreads": {"1": "5"},'
        ' "memory": ["strict", "0"], "nodes": "0-1"}'
    )
    pins = Pins({0: "0-7"}, "0-7", {1: "5"}, ("strict", "0"))
    one = OriginalPins("qemu:///system", "u", "web1", 1, 5, 7, pins, "0-1")
    assert original.parse(text) == one
    assert json.loads(one.text()) == json.loads(text)
    without = text.replace('["strict", "0"]', "null").replace('"emulator": "0-7"', '"emulator": ""')
    assert original.parse(without).pins == Pins({0: "0-7"}, None, {1: "5"})
