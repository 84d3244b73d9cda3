# SPDX-License-Identifier: GPL-2.0-or-later
"""Which node a guest that runs already belongs to."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.machines import guest
from tuned_virt.placement import PlacementMode
from tuned_virt.plugins.vm_pinning import policy
from tuned_virt.plugins.vm_pinning.already_running import decide, local_node, spread


def test_a_running_guests_own_node() -> None:
    assert local_node({0: 90, 1: 10}) == 0
    assert local_node({0: 70, 1: 30}) is None
    assert local_node({}) is None
    assert "70 % on node 0, 30 % on node 1" in spread({0: 70, 1: 30})


def test_a_running_guest_of_a_dedicated_group_floats_until_it_starts_again() -> None:
    asked = policy.parse({"dedicated": "gaming", "smt.gaming": "isolate"})
    runs = replace(guest("gaming", 2), resident={1: 90, 0: 10})
    found = decide(asked, runs)
    assert (found.node, found.ungranted) == (1, "policy=dedicated")
    assert found.policy is not None
    assert found.policy.policy is PlacementMode.NODE
    assert not found.policy.groups
    assert decide(asked, replace(runs, name="web")).ungranted == ""
    assert decide(asked, replace(runs, resident={})).ungranted == "policy=dedicated"
