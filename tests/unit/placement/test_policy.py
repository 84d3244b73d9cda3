# SPDX-License-Identifier: GPL-2.0-or-later
"""The planner's options, for a selection of guests or for one."""

from __future__ import annotations

import pytest

from tests.unit.machines import guest, machine
from tuned_virt.core.options import BadOptions
from tuned_virt.placement import plan, policy
from tuned_virt.placement.policy import (
    EmulatorMode,
    IoThreadMode,
    MemoryMode,
    PlacementMode,
    PlacementPolicy,
    Smt,
    changed,
    parse,
    policy_for,
    unused_wishes,
)


def test_every_option_has_its_field() -> None:
    assert parse(
        {
            "policy": "dedicated",
            "smt": "require",
            "housekeeping": "0-1,32",
            "emulator": "shared-with-vcpu0",
            "iothreads": "housekeeping",
            "memory": "strict",
            "overcommit": "1.5",
            "rebalance": "7",
        }
    ) == PlacementPolicy(
        PlacementMode.DEDICATED,
        Smt.REQUIRE,
        frozenset({0, 1, 32}),
        EmulatorMode.VCPU0,
        IoThreadMode.HOUSEKEEPING,
        MemoryMode.STRICT,
        1.5,
        7,
    )


def test_what_is_shown_as_the_default_is_the_default() -> None:
    shown = {name: about.default for name, about in policy.OPTIONS.items()}
    assert parse(shown) == parse({}) == parse(dict.fromkeys(shown, "")) == PlacementPolicy()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("overcommit", "1", 1.0),
        ("overcommit", "64", 64.0),
        ("overcommit", "64.000", 64.0),
        ("overcommit", "1.125", 1.125),
        ("rebalance", "never", 0),
        ("rebalance", "0", 0),
        ("rebalance", "999", 999),
        ("housekeeping", "auto", None),
        ("housekeeping", "3", frozenset({3})),
    ],
)
def test_what_is_valid(name: str, text: str, value: object) -> None:
    assert getattr(
        changed(PlacementPolicy(housekeeping=frozenset({9}), rebalance=4), {name: text}), name
    ) == (value)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("overcommit", "0.999", "a number from 1 to 64, such as 1.5"),
        ("overcommit", "64.001", "a number from 1 to 64, such as 1.5"),
        ("overcommit", "1.1234", "a number from 1 to 64, such as 1.5"),
        ("overcommit", "1,5", "a number from 1 to 64, such as 1.5"),
        ("overcommit", "٣", "a number from 1 to 64, such as 1.5"),
        ("rebalance", "1000", "never, or how many guests one plan may move (0 to 999)"),
        ("rebalance", "-1", "never, or how many guests one plan may move (0 to 999)"),
        ("rebalance", "٣", "never, or how many guests one plan may move (0 to 999)"),
        ("housekeeping", "0-", "auto, or CPUs such as 0-1,32 ("),
        ("policy", "Node", "one of node, dedicated, none"),
        ("smt", "", None),
        ("smt", "off", "one of prefer, require, isolate"),
        (
            "pinning",
            "x",
            "no such option; use one of policy, smt, housekeeping, emulator, iothreads",
        ),
    ],
)
def test_what_is_not(name: str, text: str, why: str | None) -> None:
    if why is None:
        assert parse({name: text}) == PlacementPolicy()
        return
    with pytest.raises(BadOptions) as caught:
        parse({name: text})
    assert str(caught.value).startswith(f"option '{name}': '{text}' is not valid: {why}")


def test_all_that_is_wrong_is_named() -> None:
    with pytest.raises(BadOptions) as caught:
        parse({"smt": "x", "memory": "move", "overcommit": "y"})
    assert [error.option for error in caught.value.errors] == ["smt", "overcommit"]


def test_options_come_on_top_of_what_there_is() -> None:
    base = parse({"policy": "dedicated", "overcommit": "2"})
    assert changed(base, {"smt": "isolate"}) == PlacementPolicy(
        policy=PlacementMode.DEDICATED, smt=Smt.ISOLATE, overcommit=2.0
    )


def test_a_guest_may_wish_what_concerns_itself_alone() -> None:
    base = parse({"overcommit": "2"})
    assert policy_for(guest("a", 1), base) is base
    own = {"policy": "dedicated", "smt": "isolate", "emulator": "housekeeping",
           "iothreads": "emulator", "memory": "none"}  # fmt: skip
    assert policy_for(guest("a", 1, wishes=own), base) == PlacementPolicy(
        PlacementMode.DEDICATED,
        Smt.ISOLATE,
        None,
        EmulatorMode.HOUSEKEEPING,
        IoThreadMode.EMULATOR,
        MemoryMode.NONE,
        2.0,
    )
    for other in ("housekeeping", "overcommit", "rebalance"):
        with pytest.raises(BadOptions, match="use one of policy, smt, emulator, iothreads, memory"):
            policy_for(guest("a", 1, wishes={other: "1"}), base)


@pytest.mark.parametrize(
    ("metadata", "dedicated", "none"),
    [
        ("all", PlacementMode.DEDICATED, PlacementMode.NONE),
        ("opt-out", PlacementMode.NODE, PlacementMode.NONE),
        ("none", PlacementMode.NODE, PlacementMode.NODE),
    ],
)
def test_the_administrator_says_what_metadata_may_set(
    metadata: str, dedicated: PlacementMode, none: PlacementMode
) -> None:
    """A tenant who writes metadata alone takes no CPUs from its neighbours."""
    base = parse({"metadata": metadata})
    takes = guest("a", 1, wishes={"policy": "dedicated", "smt": "isolate"})
    opts_out = guest("b", 1, wishes={"policy": "none"})
    assert policy_for(takes, base).policy is dedicated
    assert policy_for(opts_out, base).policy is none
    assert unused_wishes(takes, base) == (metadata != "all")
    assert unused_wishes(opts_out, base) == (metadata == "none")
    with pytest.raises(BadOptions):
        policy_for(guest("a", 1, wishes={"metadata": "all"}), parse({}))


def test_no_wish_shrinks_a_neighbour_where_metadata_is_not_used() -> None:
    host = machine()
    neighbour = guest("neighbour", 2)
    tenants = [guest(name, 3, wishes={"policy": "dedicated", "smt": "isolate"}) for name in "ab"]
    alone = plan(host, [neighbour], parse({}), {})
    beside = plan(
        host, [neighbour, *tenants], parse({"metadata": "opt-out", "overcommit": "2"}), {}
    )
    before, after = (
        next(one for one in made.placements if one.guest == "neighbour") for made in (alone, beside)
    )
    assert {len(cpus) for cpus in after.vcpus.values()} == {
        len(cpus) for cpus in before.vcpus.values()
    }
    said = [warning for warning in beside.warnings if "its metadata is not used" in warning]
    assert len(said) == 2


@pytest.mark.parametrize(("written", "quoted"), [("x" * 60, "x" * 60), ("x" * 61, "x" * 60 + "…")])
def test_a_wish_is_quoted_up_to_60_characters(written: str, quoted: str) -> None:
    with pytest.raises(BadOptions, match=f"'{quoted}'"):
        policy_for(guest("a", 1, wishes={"policy": written}), PlacementPolicy())
