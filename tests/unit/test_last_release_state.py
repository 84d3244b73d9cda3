# SPDX-License-Identifier: GPL-2.0-or-later
"""What 0.1.0 has left in /run/tuned-virt, written with virtual-host-plus active, a guest with CPUs
of its own and a pool filled. An upgraded TuneD goes on from it, and `restore` goes back by it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tuned_virt.core.originals import Originals
from tuned_virt.core.state_file import boot_id
from tuned_virt.kernel import device_identity
from tuned_virt.model.pins import Pins
from tuned_virt.placement import PlacementKind
from tuned_virt.plugins.blk_elevator_virt.policy_in_force import PolicyInForce
from tuned_virt.plugins.ksm.controller_state import ControllerStateFile
from tuned_virt.plugins.ksm.decision import Phase
from tuned_virt.plugins.vm_pinning import held_placements, original

LEFT = Path(__file__).parents[1] / "data/state-0.1.0"
UUID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files as they would be now."""
    for file in LEFT.glob("*.json"):
        target = shutil.copy(file, tmp_path)
        Path(target).write_text(file.read_text().replace("BOOT", boot_id()))
    return tmp_path


def test_originals(folder: Path) -> None:
    originals = Originals(folder)
    found = originals.all()
    assert originals.remarks() == []
    assert found["ksm"].originals["run"] == "0"
    assert found["hugepages_numa"].originals == {"pages_2M node0": "0"}
    guarded = found["crash_guard"].originals
    assert guarded["/proc/sys/vm/swappiness"] == "60"
    path = "/sys/block/vda/queue/read_ahead_kb"
    assert device_identity.parse(path).path == path, "a device that is known by its name alone"
    assert guarded[path] == "8192"
    [(key, text)] = found["vm_pinning"].originals.items()
    guest = original.parse(text)
    assert (guest.key, guest.uuid, guest.name) == (key, UUID, "web1")
    assert (guest.pins, guest.nodes) == (Pins({0: "0-1"}, "0-1"), "0")


def test_a_guest_that_it_has_placed(folder: Path) -> None:
    [held] = held_placements.load("qemu:///system", folder / "vm_pinning.json").values()
    assert held.placed and held.uuid == UUID
    assert held.placement.kind is PlacementKind.DEDICATED
    assert held.pins == Pins({0: "1"}, "0")
    assert held.follows, "its memory was still to follow"


def test_what_ksms_controller_remembers(folder: Path) -> None:
    state = ControllerStateFile(folder / "ksm.json").load()
    assert state.algorithm.startswith("AutoPolicy(")
    assert state.memory.phase is Phase.IDLE
    assert state.memory.written == (("run", "0"),)


def test_what_only_shows_the_disks_policy_is_written_anew(folder: Path) -> None:
    """It named no boot; the plugin writes it with its first apply."""
    assert PolicyInForce(folder).load() is None
