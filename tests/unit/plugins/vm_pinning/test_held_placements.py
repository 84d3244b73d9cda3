# SPDX-License-Identifier: GPL-2.0-or-later
"""What vm_pinning remembers of guests: whose a placement is, and what earlier versions wrote."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.failing import AT, CODES, fail
from tuned_virt.core.state_file import boot_id
from tuned_virt.kernel.files import KernelFileError
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
    lacking = replace(HELD, placement=replace(HELD.placement, ungranted="policy=dedicated"))
    held_placements.save("qemu:///other", {"u/7": lacking}, file)
    assert held_placements.load("qemu:///other", file) == {"u/7": lacking}
    assert lacking.ungranted == "policy=dedicated"
    assert replace(lacking, observed=True).ungranted == "", "only to observe was asked"
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


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("at", AT)
def test_a_record_that_cannot_be_read_is_no_empty_one(
    at: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "vm_pinning.json"
    held_placements.save("qemu:///system", {"u/7": HELD}, file)
    with monkeypatch.context() as patch:
        fail(patch, at, code, file.name)
        with pytest.raises(KernelFileError, match=os.strerror(code)):
            held_placements.load("qemu:///system", file)
        assert held_placements.everything(file) == {}, "what is only shown is shown without it"
    assert held_placements.load("qemu:///system", file) == {"u/7": HELD}


def test_one_that_is_damaged_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "vm_pinning.json"
    assert held_placements.load("qemu:///system", file) == {}
    file.write_text("{")
    assert held_placements.load("qemu:///system", file) == {}
    assert "is damaged" in caplog.text


def test_what_is_not_saved_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert not held_placements.save(
        "qemu:///system", {"u/7": HELD}, tmp_path / "file" / "vm_pinning.json"
    )
    assert "is not written" in caplog.text
