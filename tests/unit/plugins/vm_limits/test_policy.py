# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be asked of vm_limits, and what of it a guest can be given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.machines import GIB, guest
from tuned_virt.core.options import BadOptions
from tuned_virt.libvirt_api.resource_tag import UNLIMITED
from tuned_virt.plugins.vm_limits.policy import LimitsPolicy, Size, WantedLimits, parse, wanted


def test_every_option_is_read() -> None:
    asked = parse(
        {
            "memory_hard_limit": "3G",
            "memory_soft_limit": "80%",
            "swap_hard_limit": "4096M",
            "cpu_shares": "200",
            "uri": "qemu:///session",
            "observe": "yes",
            "another_plugins": "x",
        }
    )
    assert asked == LimitsPolicy(
        {
            "memory_hard_limit": Size(3 * GIB),
            "memory_soft_limit": Size(80, percent=True),
            "swap_hard_limit": Size(4 * GIB),
        },
        200,
        "qemu:///session",
        True,
    )
    assert parse({}) == LimitsPolicy()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", Size(1)),
        ("2K", Size(2)),
        ("3M", Size(3 << 10)),
        ("4G", Size(4 << 20)),
        ("5T", Size(5 << 30)),
        ("1%", Size(1, True)),
        ("9999%", Size(9999, True)),
        ("8388607T", Size(8388607 << 30)),
    ],
)
def test_sizes(text: str, size: Size) -> None:
    assert parse({"memory_soft_limit": text}).memory == {"memory_soft_limit": size}


@pytest.mark.parametrize(
    "text",
    ["0", "0G", "0%", "-1", "1.5G", "1g", "1 G", "10000%", "1B", "٣", str(UNLIMITED),
     "8388608T", "9" * 16],
)  # fmt: skip
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadOptions) as caught:
        parse({"memory_soft_limit": text})
    assert str(caught.value) == (
        f"option 'memory_soft_limit': '{text}' is not valid: a size with K, M, G or T such as"
        " 4096M (KiB without a unit), or a percentage of the guest's memory such as 150%"
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"cpu_shares": "0"},
            "option 'cpu_shares': '0' is not valid: a whole number from 1 to 10000",
        ),
        ({"observe": "x"}, "option 'observe': 'x' is not valid: 1 or 0 (yes, no, true, false, on"),
        ({"uri": "x"}, "option 'uri': 'x' is not valid: a libvirt URI such as qemu:///system"),
        (
            {"min_guarantee": "1G"},
            "option 'min_guarantee': '1G' is not valid: QEMU refuses it: leave it out",
        ),
        (
            {"swap_hard_limit": "2G"},
            "option 'swap_hard_limit': '2G' is not valid: memory and swap together: it needs"
            " memory_hard_limit",
        ),
        (
            {"swap_hard_limit": "2G", "memory_hard_limit": "3G"},
            "option 'swap_hard_limit': '2G' is not valid: not below memory_hard_limit=3G",
        ),
        (
            {"swap_hard_limit": "110%", "memory_hard_limit": "111%"},
            "option 'swap_hard_limit': '110%' is not valid: not below memory_hard_limit=111%",
        ),
    ],
)
def test_what_is_not_valid(options: dict[str, str], why: str) -> None:
    with pytest.raises(BadOptions) as caught:
        parse(options)
    assert str(caught.value).startswith(why)


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
        parse(options)


def test_all_that_is_wrong_is_named() -> None:
    with pytest.raises(BadOptions) as caught:
        parse({"cpu_shares": "x", "observe": "y", "memory_hard_limit": "z"})
    assert [one.option for one in caught.value.errors] == [
        "cpu_shares", "observe", "memory_hard_limit",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("swap", "hard"), [("3G", "3G"), ("150%", "150%"), ("1G", "150%"), ("100%", "4G")]
)
def test_what_only_a_guest_can_tell_is_not_refused(swap: str, hard: str) -> None:
    assert len(parse({"swap_hard_limit": swap, "memory_hard_limit": hard}).memory) == 2


def given(made: Any = None, **options: str) -> WantedLimits:
    return wanted(parse(options), made or guest("a", 1, 4))


def test_limits_of_one_guest() -> None:
    assert given(
        memory_hard_limit="150%", memory_soft_limit="1G", swap_hard_limit="8G"
    ) == WantedLimits({"hard_limit": 6 * GIB, "soft_limit": GIB, "swap_hard_limit": 8 * GIB})
    assert given(cpu_shares="7") == WantedLimits({}, 7)


def test_qemu_needs_half_a_gib_beside_the_memory() -> None:
    assert given(memory_hard_limit="4608M").memory == {"hard_limit": 4608 << 10}
    assert given(memory_hard_limit="4607M", cpu_shares="7") == WantedLimits(
        {}, 7, ("memory_hard_limit of 4607 MiB: with QEMU the guest needs at least 4608 MiB",)
    )
    grows = replace(guest("a", 1, 4), max_memory=6 * GIB)
    assert given(grows, memory_hard_limit="6655M").refused == (
        "memory_hard_limit of 6655 MiB: with QEMU the guest needs at least 6656 MiB",
    )


def test_locked_memory_needs_a_hard_limit() -> None:
    locked = guest("a", 1, 4, locked=True)
    assert given(locked, memory_soft_limit="1G") == WantedLimits(
        {}, None, ("its memory is <locked/>, which needs memory_hard_limit",)
    )
    assert given(locked, memory_hard_limit="8G").memory == {"hard_limit": 8 * GIB}
    assert given(locked, cpu_shares="7") == WantedLimits({}, 7)


def test_swap_is_not_below_the_hard_limit() -> None:
    assert given(memory_hard_limit="8G", swap_hard_limit="200%").refused == ()
    assert given(memory_hard_limit="9G", swap_hard_limit="200%") == WantedLimits(
        {}, None, ("swap_hard_limit of 8192 MiB is below memory_hard_limit",)
    )
