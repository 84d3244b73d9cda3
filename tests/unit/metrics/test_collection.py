# SPDX-License-Identifier: GPL-2.0-or-later
"""What a collection says of itself."""

from __future__ import annotations

from tuned_virt.metrics import collection
from tuned_virt.metrics.collection import CollectorState


def test_a_collector_that_shows_nothing_has_errors_alone() -> None:
    states = {"ksm": CollectorState(0, 1000.0, 0.5), "audit": CollectorState(2)}
    found = {one.family.name: dict(one.values) for one in collection.samples("0.2.0", states)}
    assert found == {
        "tuned_virt_build_info": {("0.2.0",): 1},
        "tuned_virt_collector_errors": {("ksm",): 0, ("audit",): 2},
        "tuned_virt_collector_timestamp_seconds": {("ksm",): 1000.0},
        "tuned_virt_collector_duration_seconds": {("ksm",): 0.5},
    }
