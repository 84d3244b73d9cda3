# SPDX-License-Identifier: GPL-2.0-or-later
"""Which node a guest that runs already belongs to."""

from __future__ import annotations

from tuned_virt.plugins.vm_pinning.already_running import local_node, spread


def test_a_running_guests_own_node() -> None:
    assert local_node({0: 90, 1: 10}) == 0
    assert local_node({0: 70, 1: 30}) is None
    assert local_node({}) is None
    assert "70 % on node 0, 30 % on node 1" in spread({0: 70, 1: 30})
