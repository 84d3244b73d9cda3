# SPDX-License-Identifier: GPL-2.0-or-later
"""What administrators may write in [vm_pinning]."""

from __future__ import annotations

import pytest

from tuned_virt.core.options import BadOptions
from tuned_virt.placement import PlacementMode
from tuned_virt.plugins.vm_pinning import policy as pinning
from tuned_virt.plugins.vm_pinning.policy import Persist, Rebalance, RunningGuests


def test_defaults_of_pinning_are_safe() -> None:
    policy = pinning.parse({name: about.default or "" for name, about in pinning.OPTIONS.items()})
    assert policy == pinning.parse({}) == pinning.PinningPolicy()
    assert policy.running is RunningGuests.LOCAL
    assert policy.rebalance is Rebalance.NEVER
    assert policy.placement.policy is PlacementMode.NODE
    assert policy.balancing is None


def test_every_option_of_pinning_is_read() -> None:
    policy = pinning.parse(
        {
            "policy": "dedicated",
            "running": "place",
            "rebalance": "on_stop",
            "grace": "30",
            "move_memory": "no",
            "move_rate": "0",
            "move_limit": "4096",
            "numa_balancing": "0",
            "uri": "qemu+unix:///system?socket=/x",
            "persist": "both",
            "observe": "yes",
        }
    )
    assert policy.placement.policy is PlacementMode.DEDICATED
    assert (policy.running, policy.rebalance) == (RunningGuests.PLACE, Rebalance.ON_STOP)
    assert policy.persist is Persist.BOTH
    assert (policy.grace, policy.move, policy.rate, policy.limit) == (30, False, 0, 4096)
    assert (policy.balancing, policy.observe) == (0, True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy", "nodes"),
        ("running", "now"),
        ("persist", "disk"),
        ("rebalance", "3"),
        ("grace", "-1"),
        ("grace", ">3"),
        ("move_rate", "fast"),
        ("uri", "not a uri"),
        ("numa_balancing", "7"),
        ("move_memory", "maybe"),
    ],
)
def test_bad_options_of_pinning_name_themselves(name: str, text: str) -> None:
    with pytest.raises(BadOptions) as bad:
        pinning.parse({name: text, "overcommit": "0.1"})
    assert {error.option for error in bad.value.errors} == {name, "overcommit"}
