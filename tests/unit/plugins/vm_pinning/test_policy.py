# SPDX-License-Identifier: GPL-2.0-or-later
"""What administrators may write for guests: selections, pinning, limits."""

from __future__ import annotations

from typing import Any

import pytest

from tuned_virt.core.options import BadOptions
from tuned_virt.model.guest import Guest
from tuned_virt.placement import PlacementMode
from tuned_virt.plugins.vm_limits import policy as limits
from tuned_virt.plugins.vm_limits.controller import owned
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


UUID = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"
GIB = 1 << 20


def guest(**changes: Any) -> Guest:
    return Guest(**{"name": "web1", "uuid": UUID, "memory": GIB, **changes})


def test_limits_for_one_guest() -> None:
    policy = limits.parse(
        {"memory_hard_limit": "2G", "swap_hard_limit": "300%", "cpu_shares": "50"}
    )
    assert limits.wanted(policy, guest()) == limits.WantedLimits(
        {"hard_limit": 2 * GIB, "swap_hard_limit": 3 * GIB}, 50
    )


@pytest.mark.parametrize(
    ("options", "changes", "refused"),
    [
        ({"memory_hard_limit": "1G"}, {}, "the guest needs at least 1536 MiB"),
        ({"memory_hard_limit": "2G"}, {"max_memory": 4 * GIB}, "needs at least 4608 MiB"),
        ({"memory_soft_limit": "1G"}, {"locked": True}, "needs memory_hard_limit"),
        ({"memory_hard_limit": "4G", "swap_hard_limit": "300%"}, {}, "is below"),
    ],
)
def test_limits_that_would_harm_a_guest_are_refused(
    options: dict[str, str], changes: dict[str, Any], refused: str
) -> None:
    wanted = limits.wanted(limits.parse(options), guest(**changes))
    assert wanted.memory == {}
    assert refused in " ".join(wanted.refused)


@pytest.mark.parametrize(
    "options",
    [
        {"memory_hard_limit": "lots"},
        {"memory_hard_limit": "0"},
        {"swap_hard_limit": "2G"},
        {"memory_hard_limit": "4G", "swap_hard_limit": "2G"},
        {"min_guarantee": "1G"},
        {"cpu_shares": "0"},
        {"cpu_shares": ">5"},
        {"uri": "not a uri"},
    ],
)
def test_limits_that_make_no_sense(options: dict[str, str]) -> None:
    with pytest.raises(BadOptions):
        limits.parse(options)


def test_what_the_owner_limits_is_seen() -> None:
    xml = "<domain><memtune>\n<hard_limit unit='KiB'>1048576</hard_limit>\n</memtune></domain>"
    assert owned(xml) == ["hard_limit"]
    assert owned(xml.replace("1048576", str(limits.UNLIMITED))) == []
    shares = "<domain><cputune>\n<shares>7</shares></cputune></domain>"
    assert owned(shares) == ["cpu_shares"]


@pytest.mark.parametrize(
    "inner",
    [
        "<hard_limit>1</hard_limit>",
        f"<hard_limit>{'9' * 5000}</hard_limit>",
        "<cputune><shares>7</shares></cputune>",
    ],
)
def test_what_only_looks_like_a_limit_is_none(inner: str) -> None:
    metadata = f"<metadata><x:y xmlns:x='urn:x'>{inner}</x:y></metadata>"
    assert owned(f"<domain>{metadata}<cputune/></domain>") == []
    assert owned(f"<domain><memtune>{inner.replace('>1<', '>one<')}</memtune></domain>") == []
